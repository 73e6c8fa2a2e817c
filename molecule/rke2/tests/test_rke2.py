"""The nodes of a cluster of three servers and an agent after an upgrade."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://rke2_server", "ansible://rke2_agent"]


def kind_of(host: Host) -> str:
    return "agent" if "agent" in host.check_output("hostname") else "server"


def journal(host: Host) -> str:
    with host.sudo():
        return str(host.check_output(f"journalctl -u rke2-{kind_of(host)} -n 40 --no-pager"))


def test_the_service_runs_and_returns_after_a_reboot(host: Host) -> None:
    service = host.service(f"rke2-{kind_of(host)}")
    assert service.is_running, journal(host)
    assert service.is_enabled


def test_the_unit_records_the_files_it_was_started_with(host: Host) -> None:
    with host.sudo():
        invocation, *lines = host.file("/run/slipway-rke2/started-with").content_string.splitlines()
        assert invocation == host.check_output(f"systemctl show --value --property=InvocationID rke2-{kind_of(host)}")
        assert host.run("tail -n +2 /run/slipway-rke2/started-with | sha256sum --check --quiet").rc == 0
        assert host.file("/run/slipway-rke2/started-with").mode == 0o600
    assert any(line.endswith("/etc/rancher/rke2/config.yaml") for line in lines)


def test_secrets_are_for_root_only_and_in_no_command_line(host: Host) -> None:
    with host.sudo():
        config = host.file("/etc/rancher/rke2/config.yaml")
        assert (config.user, config.mode) == ("root", 0o600)
        tokens = [line.split(": ")[1] for line in config.content_string.splitlines() if "token: " in line]
        command_lines = host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert len(set(tokens)) == len(tokens) == (2 if kind_of(host) == "server" else 1)
    assert not [token for token in tokens if token in command_lines]


def test_the_programs_of_killall_are_installed(host: Host) -> None:
    """rke2-killall.sh removes the rules of kube-proxy and CNI with them."""
    with host.sudo():
        assert host.run("iptables-save && ip6tables-save && command -v iptables-restore ip6tables-restore").rc == 0


def test_the_ingress_serves_the_platforms_certificate(host: Host, inventory: Inventory) -> None:
    domain = inventory.settings["platform_domain"]
    shown = host.check_output(
        f"openssl s_client -connect 127.0.0.1:443 -servername ingress.{domain} </dev/null 2>/dev/null"
        " | openssl x509 -noout -ext subjectAltName"
    )
    assert f"DNS:ingress.{domain}" in shown
    assert f"DNS:*.apps.{domain}" in shown


def test_the_cis_profile_is_applied(host: Host) -> None:
    with host.sudo():
        assert "profile: cis" in host.file("/etc/rancher/rke2/config.yaml").content_string
    assert host.sysctl("vm.overcommit_memory") == 1
    if kind_of(host) == "server":
        assert host.user("etcd").exists
