"""Servers: first boot, power, exits, rescue, rebuild, resize."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from lab.machines import images
from lab.machines.base import ExitReason, HostSpec, MachineError, PowerState
from tests.lab.machines.conftest import Lab, wait

pytestmark = pytest.mark.real


def test_cloud_init_applies_user_data(lab: Lab) -> None:
    assert lab.output(1, "cloud-init status --wait --format json | grep -c '\"errors\": \\[\\]'") != "0"
    assert lab.output(1, "cat /etc/motd; stat -c %a /etc/motd; cat /root/ran") == "written by cloud-init\n640\nran"
    done = lab.ssh(1, "sudo -n id -u", user="slipway")
    assert done.stdout.strip() == "0", done.stderr


def test_a_host_has_its_own_identity(lab: Lab) -> None:
    facts = "hostname; cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
    one, two = lab.output(1, facts).splitlines(), lab.output(2, facts).splitlines()
    assert one[0] == "web" and two[0] == "db"
    assert not set(one) & set(two)
    assert lab.output(1, "systemctl --failed --no-legend") == ""
    assert lab.output(1, "getent hosts web").split()[0] == "127.0.1.1"


def test_packages_of_the_roles_start_no_service(lab: Lab) -> None:
    wanted = set(images.packages_of_roles(lab.settings, "debian-13"))
    if not wanted:
        pytest.skip("plain images carry no packages of the roles")
    installed = lab.output(1, "dpkg-query --show --showformat='${db:Status-Abbrev}${Package}\\n'")
    assert {f"ii {package}" for package in wanted} <= set(installed.splitlines())
    units = lab.output(1, "systemctl list-unit-files --state=enabled --no-legend; systemctl list-units --no-legend")
    for name in ("chrony", "nginx", "certbot", "postgres", "pgbouncer", "podman", "lvm2", "logrotate", "unattended"):
        assert not re.search(rf"^\s*\S*{name}\S*\.(service|timer|socket)", units, re.M), name
    # No database exists, and no key that a package generates is shared by all hosts.
    assert lab.output(1, "pg_lsclusters --no-header; ls /etc/ssl/private") == ""
    assert not lab.succeeds(1, "test -e /etc/postgresql-common/createcluster.d -o -e /usr/sbin/policy-rc.d")


def test_a_host_has_only_its_own_disks(lab: Lab) -> None:
    assert lab.output(1, "find /dev -type b") == ""


def test_the_disk_has_the_size_of_the_server_type(lab: Lab) -> None:
    for path in ("/", "/var/lib"):
        size = int(lab.output(1, f"df --output=size -B1000000000 {path} | tail -1"))
        assert 18 <= size <= 20
    # Containers in a host need a file system that can be the upper layer of an overlay.
    overlay = "lowerdir=/etc,upperdir=/var/lib/o/u,workdir=/var/lib/o/w"
    assert lab.succeeds(
        1, f"mkdir -p /var/lib/o/u /var/lib/o/w /var/lib/o/m && mount -t overlay o -o {overlay} /var/lib/o/m"
    )


def test_metadata_identifies_the_client(lab: Lab) -> None:
    for server_id, name in ((1, "web"), (2, "db")):
        assert lab.output(server_id, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname") == name
    # Through the private network too, where two servers have the same address.
    private = "curl -sf --interface enp7s0 http://169.254.169.254/hetzner/v1/metadata/hostname"
    route = "ip route replace 169.254.169.254 via 10.40.0.1 dev enp7s0"
    for server_id, name in ((1, "web"), (3, "other")):
        assert lab.output(server_id, f"{route}; {private}; ip route del 169.254.169.254") == name
    assert lab.output(1, "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/nothing") == "404"


def test_power_off_cuts_the_power(lab: Lab) -> None:
    lab.machines.power_off(2)
    assert lab.machines.state(2) is PowerState.OFF
    started = time.monotonic()
    assert not lab.answers(2)
    # Packets are dropped, as by a machine without power, not rejected.
    assert time.monotonic() - started > 0.9
    assert not lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    lab.machines.power_off(2)
    lab.machines.power_on(lab.specs[2])
    lab.machines.power_on(lab.specs[2])
    lab.wait_for_ssh(2)
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    assert lab.output(2, "cat /root/ran") == "ran"
    assert lab.exits == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda lab: lab.run(2, "systemctl reboot"), ExitReason.REBOOT),
        (lambda lab: lab.run(2, "systemctl poweroff"), ExitReason.POWEROFF),
        (lambda lab: lab.machines.shutdown(2), ExitReason.POWEROFF),
        (lambda lab: lab.machines.reboot(2), ExitReason.REBOOT),
    ],
    ids=["reboot inside", "poweroff inside", "shutdown", "reboot"],
)
def test_the_reason_of_an_exit_is_reported(lab: Lab, how: object, reason: ExitReason) -> None:
    how(lab)  # type: ignore[operator]
    assert wait(lambda: lab.exits == [(2, reason)]), lab.exits
    assert lab.machines.state(2) is PowerState.OFF
    assert not lab.answers(2)
    lab.exits.clear()
    assert "shutdown.target" in lab.machines.console_log(2)
    lab.machines.power_on(lab.specs[2])
    lab.wait_for_ssh(2)


def test_no_state_of_an_earlier_boot_remains(lab: Lab) -> None:
    lab.output(
        2, "nft add table inet old; ip link add old0 type dummy; ip rule add pref 99 lookup main; touch /run/old"
    )
    lab.machines.power_off(2)
    lab.machines.power_on(lab.specs[2])
    lab.wait_for_ssh(2)
    assert (
        lab.output(2, "nft list tables; ip link show type dummy; ip rule show pref 99; ls /run | grep old || true")
        == ""
    )


def test_shutdown_of_a_host_that_is_off_is_an_error(lab: Lab, spare: HostSpec) -> None:
    with pytest.raises(MachineError, match="is off"):
        lab.machines.shutdown(spare.server_id)


def test_rescue_mounts_the_disk_unchanged(lab: Lab, spare: HostSpec) -> None:
    lab.boot(spare)
    lab.output(4, "echo precious > /root/precious")
    lab.machines.power_off(4)
    rescue = dataclasses.replace(spare, rescue=True, rescue_ssh_keys=(lab.public_key,), root_password="secret-word")
    lab.machines.power_on(rescue)
    lab.wait_for_ssh(4)
    assert (
        lab.output(4, "hostname; cat /mnt/root/precious; stat -f -c %T /mnt/var/lib") == "rescue\nprecious\next2/ext3"
    )
    lab.output(4, "touch /gone")
    lab.machines.power_off(4)
    lab.machines.power_on(spare)
    lab.wait_for_ssh(4)
    assert lab.output(4, "hostname; cat /root/precious; ls -d /gone 2>/dev/null || true") == "server-4\nprecious"


def test_resize_keeps_the_disk_and_rebuild_does_not(lab: Lab, spare: HostSpec) -> None:
    lab.boot(spare)
    lab.output(4, "touch /root/kept /var/lib/kept; sync")
    lab.machines.power_off(4)
    bigger = lab.spec(4, memory_gb=4, disk_gb=40)
    disk = lab.machines._disk(4)
    disk.open()
    with (
        (disk.mount / "fill_file").open("wb"),
        pytest.raises(MachineError, match="the disk cannot grow: a process of this"),
    ):
        lab.machines.resize(bigger)
    assert disk.image.stat().st_size < 40 * 10**9
    disk.open()
    with (
        (disk.mount / "fill_file").open("wb"),
        pytest.raises(MachineError, match="still has the mounted file system of"),
    ):
        disk.close()
        assert not disk.mount.is_mount(), "the unmount was lazy"
        lab.machines.resize(bigger)
    assert disk.image.stat().st_size < 40 * 10**9
    lab.machines.resize(bigger)
    lab.machines.power_on(bigger)
    lab.wait_for_ssh(4)
    lab.output(4, "ls /root/kept /var/lib/kept")
    assert int(lab.output(4, "df --output=size -B1000000000 / | tail -1")) > 35
    lab.machines.rebuild(lab.spec(4, image="debian-12", disk_gb=40))
    assert lab.machines.state(4) is PowerState.OFF
    lab.machines.power_on(lab.specs[4])
    lab.wait_for_ssh(4)
    assert lab.output(4, ". /etc/os-release; echo $VERSION_ID; ls /root/kept 2>/dev/null || true") == "12"
    assert lab.output(4, "cloud-init status --wait | grep -o done; cat /root/ran") == "done\nran"


def test_passwords(lab: Lab, spare: HostSpec) -> None:
    lab.boot(spare)
    before = lab.output(4, "grep ^root /etc/shadow")
    lab.machines.reset_password(4, "a-new-word")
    running = lab.output(4, "grep ^root /etc/shadow")
    assert running != before and running.startswith("root:$")
    lab.machines.power_off(4)
    lab.machines.reset_password(4, "another-word")
    lab.machines.power_on(spare)
    lab.wait_for_ssh(4)
    assert lab.output(4, "grep ^root /etc/shadow") not in (before, running)


def test_a_host_without_public_ipv4(lab: Lab) -> None:
    spec = lab.spec(5, ipv4=None)
    try:
        lab.boot(spec)
        assert (
            lab.output(5, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname; cat /root/ran")
            == "server-5ran"
        )
    finally:
        lab.machines.delete_host(5)


def test_console(lab: Lab) -> None:
    text = lab.machines.console_log(1)
    assert "ssh.service" in text and len(text) <= 64 * 1024


def test_delete_removes_everything_of_a_host(lab: Lab) -> None:
    lab.boot(lab.spec(6))
    lab.machines.delete_host(6)
    lab.machines.delete_host(6)
    assert lab.machines.state(6) is PowerState.ABSENT
    assert not [item for item in lab.leftovers() if item.endswith("-h6") or "/servers/6/" in item]
