"""A cluster of three servers and an agent after an upgrade, seen from its nodes."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://rke2_server", "ansible://rke2_agent"]

VERSION = "v1.36.3+rke2r1"
SERVERS = [f"test-rke2-server-{number}" for number in (1, 2, 3)]
NODES = [*SERVERS, "test-rke2-agent-1"]

# What the administrator's kubeconfig on a server reads, without a client that hosts do not have.
READ = """
import base64, json, re, ssl, tempfile, urllib.request
text = open("/etc/rancher/rke2/rke2.yaml").read()
def value(key):
    return base64.b64decode(re.search(key + r"-data: *\\"?([^\\s\\"]+)", text).group(1)).decode()
context = ssl.create_default_context(cadata=value("certificate-authority"))
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
with tempfile.NamedTemporaryFile("w") as pair:
    pair.write(value("client-certificate") + value("client-key"))
    pair.flush()
    context.load_cert_chain(pair.name)
print(urllib.request.urlopen("https://127.0.0.1:6443{path}", context=context, timeout=5).read().decode())
"""


def name_of(host: Host) -> str:
    return str(host.check_output("hostname"))


def kind_of(host: Host) -> str:
    return "agent" if "agent" in name_of(host) else "server"


@pytest.fixture
def server(host: Host) -> Host:
    if kind_of(host) != "server":
        pytest.skip("only servers have it")
    return host


def journal(host: Host) -> str:
    with host.sudo():
        return str(host.check_output(f"journalctl -u rke2-{kind_of(host)} -n 40 --no-pager"))


def read(host: Host, path: str) -> str:
    with host.sudo():
        return str(host.check_output("python3 -c %s", READ.replace("{path}", path)))


def test_the_service_runs_and_returns_after_a_reboot(host: Host) -> None:
    service = host.service(f"rke2-{kind_of(host)}")
    assert service.is_running, journal(host)
    assert service.is_enabled


def test_every_node_is_ready_at_the_new_version(server: Host) -> None:
    nodes = json.loads(read(server, "/api/v1/nodes"))["items"]
    seen = {node["metadata"]["name"]: node for node in nodes}
    assert sorted(seen) == sorted(NODES)
    for name, node in seen.items():
        ready = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}["Ready"]
        assert (name, ready) == (name, "True"), journal(server)
        assert node["status"]["nodeInfo"]["kubeletVersion"] == VERSION
        assert not node["spec"].get("unschedulable"), "the upgrade lifts its own cordons"


def test_the_api_is_ready_and_refuses_strangers(server: Host) -> None:
    assert read(server, "/readyz").strip() == "ok"
    status = server.check_output("curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1:6443/api/v1/nodes")
    assert status in ("401", "403")


def test_the_unit_notes_what_it_was_started_with(host: Host) -> None:
    with host.sudo():
        number, *lines = host.file("/run/slipway-rke2/started-with").content_string.splitlines()
        assert number == host.check_output(f"systemctl show --value --property=InvocationID rke2-{kind_of(host)}")
        assert host.run("tail -n +2 /run/slipway-rke2/started-with | sha256sum --check --quiet").rc == 0
        assert host.file("/run/slipway-rke2/started-with").mode == 0o600
    assert any(line.endswith("/etc/rancher/rke2/config.yaml") for line in lines)


def test_a_snapshot_was_taken_before_the_upgrade(host: Host) -> None:
    if name_of(host) != SERVERS[0]:
        pytest.skip("taken on the first server")
    with host.sudo():
        files = host.check_output("find /var/lib/rancher/rke2/server/db/snapshots -name 'before-change-*' -size +0")
    assert files


def test_secrets_are_for_root_only_and_in_no_command_line(host: Host) -> None:
    with host.sudo():
        config = host.file("/etc/rancher/rke2/config.yaml")
        assert (config.user, config.mode) == ("root", 0o600)
        tokens = [line.split(": ")[1] for line in config.content_string.splitlines() if "token: " in line]
        command_lines = host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert len(set(tokens)) == len(tokens) == (2 if kind_of(host) == "server" else 1)
    assert not [token for token in tokens if token in command_lines]


def test_the_ingress_serves_the_platforms_certificate(host: Host) -> None:
    shown = host.check_output(
        "openssl s_client -connect 127.0.0.1:443 -servername ingress.test.slipway.test </dev/null 2>/dev/null"
        " | openssl x509 -noout -ext subjectAltName"
    )
    assert "DNS:ingress.test.slipway.test" in shown
    assert "DNS:*.apps.test.slipway.test" in shown


def test_the_hardening_profile_is_in_force(host: Host) -> None:
    with host.sudo():
        assert "profile: cis" in host.file("/etc/rancher/rke2/config.yaml").content_string
    assert host.sysctl("vm.overcommit_memory") == 1
    if kind_of(host) == "server":
        assert host.user("etcd").exists
