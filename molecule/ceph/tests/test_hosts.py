"""Hosts of the cluster: listening addresses, permissions of keys, SSH access."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://ceph"]


def name_of(host: Host) -> str:
    return str(host.check_output("hostname"))


def test_daemons_listen_on_the_private_network_only(host: Host, inventory: Inventory) -> None:
    with host.sudo():
        listening = host.check_output("ss -Hltnp")
    own = [line.split() for line in listening.splitlines() if "ceph-mon" in line or "ceph-osd" in line]
    assert own
    assert {parts[3].rpartition(":")[0] for parts in own} == {inventory.address(name_of(host))}


def test_keys_are_for_root_only_and_in_no_command_line(host: Host, inventory: Inventory) -> None:
    fsid = inventory.settings["ceph_fsid"]
    with host.sudo():
        files = host.check_output(f"find /etc/ceph /var/lib/ceph/{fsid} -name '*keyring*' -type f").split()
        assert files
        assert [path for path in files if host.file(path).mode & 0o077] == []
        secrets = {
            line.split("=", 1)[1].strip()
            for path in files
            for line in host.file(path).content_string.splitlines()
            if line.strip().startswith("key =")
        }
        command_lines = host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert secrets
    assert [secret for secret in secrets if secret in command_lines] == []


def test_ssh_access_of_the_managers_is_restricted_to_members(host: Host, inventory: Inventory) -> None:
    members = ",".join(map(inventory.address, inventory.group("ceph")))
    with host.sudo():
        keys = host.file("/var/lib/cephadm/.ssh/authorized_keys")
        assert keys.content_string.startswith(f'restrict,from="{members}" ssh-')
        assert (keys.user, keys.mode) == ("cephadm", 0o600)
        account = host.check_output("getent shadow cephadm")
    assert account.split(":")[1].startswith("!")


def test_daemons_start_after_a_reboot(host: Host, inventory: Inventory) -> None:
    assert host.service(f"ceph-{inventory.settings['ceph_fsid']}@mon.{name_of(host)}").is_enabled
    assert host.service("ceph.target").is_enabled
