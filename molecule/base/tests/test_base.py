"""The state of every host, on a Kubernetes node and on another host."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://postgresql", "ansible://rke2_agent"]


def test_the_firewall_is_enabled_and_changes_no_other_table(host: Host) -> None:
    assert host.service("slipway-firewall").is_enabled
    assert not host.service("nftables").is_enabled
    host.check_output("nft add table inet bystander")
    try:
        host.check_output("systemctl stop slipway-firewall")
        tables = host.check_output("nft list tables")
        assert "table inet bystander" in tables and "table inet slipway" not in tables
        host.check_output("systemctl start slipway-firewall")
        assert "table inet bystander" in host.check_output("nft list tables")
    finally:
        host.check_output("systemctl start slipway-firewall")
        host.check_output("nft delete table inet bystander")
    assert "policy drop" in host.check_output("nft list chain inet slipway input")
    assert "hook forward" not in host.check_output("nft list table inet slipway")


def test_files_made_by_sudo_are_readable_despite_a_stricter_umask(host: Host) -> None:
    host.check_output("echo 'Defaults umask=0077' > /etc/sudoers.d/10-test")
    try:
        assert host.check_output("sudo -u slipway sudo -n sh -c umask") == "0022"
    finally:
        host.check_output("rm /etc/sudoers.d/10-test")


def test_ssh_accepts_keys_only(host: Host) -> None:
    settings = set(host.check_output("sshd -T").splitlines())
    expected = {
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "authenticationmethods publickey",
        "allowusers slipway",
        "x11forwarding no",
        "allowtcpforwarding no",
    }
    assert expected <= settings, expected - settings


def test_ssh_offers_modern_algorithms_only(host: Host) -> None:
    settings = dict(line.split(" ", 1) for line in host.check_output("sshd -T").splitlines() if " " in line)
    for key in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms"):
        assert not any(word in settings[key] for word in ("sha1", "cbc", "group14", "ssh-dss", "hmac-md5")), settings[
            key
        ]
    assert "mlkem768x25519-sha256" in settings["kexalgorithms"]


def test_the_account_has_exactly_the_given_keys(host: Host) -> None:
    keys = host.file("/home/slipway/.ssh/authorized_keys")
    assert keys.user == "slipway" and keys.mode == 0o600
    assert len(keys.content_string.splitlines()) == 1
    assert host.run("sudo -u slipway sudo -n true").rc == 0


def test_time_is_kept_but_a_container_sets_no_clock(host: Host) -> None:
    assert host.service("chrony").is_running and host.service("chrony").is_enabled
    if host.run("systemd-detect-virt --container").rc == 0:
        assert "-x" in host.check_output("cat /proc/$(cat /run/chrony/chronyd.pid)/cmdline | tr '\\0' ' '").split()


def test_the_kernel_forwards_on_nodes_alone(host: Host) -> None:
    node = "rke2" in host.check_output("uname --nodename")
    assert host.sysctl("net.ipv4.ip_forward") == int(node)
    assert host.sysctl("net.ipv4.conf.all.rp_filter") == 1
    assert host.sysctl("net.ipv4.conf.all.accept_redirects") == 0


def test_the_platforms_ca_is_trusted(host: Host) -> None:
    folder = host.file("/usr/local/share/ca-certificates/slipway")
    assert folder.listdir()
    for name in folder.listdir():
        path = f"/usr/local/share/ca-certificates/slipway/{name}"
        assert host.run(f"openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt {path}").rc == 0


def test_security_updates_are_unattended_and_without_reboot(host: Host) -> None:
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in settings
    origins = [line for line in settings.splitlines() if line.startswith("Unattended-Upgrade::Origins-Pattern::")]
    assert len(origins) == 1 and "-security" in origins[0]


def test_the_journal_is_kept_within_bounds(host: Host) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "SystemMaxUse=500M" in shown and "Storage=persistent" in shown
    assert host.file("/var/log/journal").is_directory


def test_nothing_failed(host: Host) -> None:
    failed = host.check_output("systemctl --failed --no-legend --plain")
    assert failed == "", failed
