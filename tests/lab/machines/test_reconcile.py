"""Reconcile after the daemon, a process or the machine was killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machines import containers, namespaces
from lab.machines.base import ExitReason, Fault, FirewallRule, FirewallSpec, PowerState, VolumeSpec
from tests.lab.machines.conftest import LEGS, NETWORKS, Lab, wait

pytestmark = pytest.mark.real
SSH = FirewallSpec(70, (FirewallRule("in", "tcp", "22", ("0.0.0.0/0",)),))


@pytest.fixture
def restarted(lab: Lab) -> Iterator[Lab]:
    """A lab whose daemon has stopped; the test starts the next one by `reconcile`."""
    lab.machines.close()
    lab.machines = lab.fresh_machines()
    yield lab
    lab.machines.reconcile(lab.desired())
    for server_id in (1, 2, 3):
        lab.wait_for_ssh(server_id)
    lab.exits.clear()


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


def boot_id(lab: Lab, server_id: int) -> str:
    return lab.output(server_id, "stat -c %Y /proc/1")


def test_without_drift_nothing_changes(restarted: Lab) -> None:
    lab = restarted
    before = [boot_id(lab, server_id) for server_id in (1, 2, 3)]
    assert lab.machines.reconcile(lab.desired()) == []
    assert lab.machines.reconcile(lab.desired()) == []
    assert [boot_id(lab, server_id) for server_id in (1, 2, 3)] == before
    assert lab.output(1, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname") == "web"
    assert all(lab.machines.state(server_id) is PowerState.RUNNING for server_id in (1, 2, 3))
    # The host is watched again.
    lab.run(2, "systemctl poweroff")
    assert wait(lambda: lab.exits == [(2, ExitReason.POWEROFF)])


def test_container_removed_by_force(restarted: Lab) -> None:
    lab = restarted
    sh(f"podman rm --force --time=0 {lab.settings.container_name(2)}")
    assert any("started server db" in line for line in lab.machines.reconcile(lab.desired()))
    lab.wait_for_ssh(2)
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")


def test_namespace_names_removed(restarted: Lab) -> None:
    lab = restarted
    before = boot_id(lab, 2)
    sh(f"ip netns delete {lab.settings.host_namespace(2)}")
    done = lab.machines.reconcile(lab.desired())
    assert done == ["restored the namespace of server db"]
    assert boot_id(lab, 2) == before


def test_router_and_networks_removed(restarted: Lab) -> None:
    lab = restarted
    desired = lab.desired(firewalls=(SSH,), firewall_members={2: (70,)})
    lab.machines.reconcile(desired)
    before = boot_id(lab, 2)
    sh(f"ip netns delete {lab.settings.router_namespace}; ip netns delete {lab.settings.network_namespace(50)}")
    assert lab.machines.reconcile(desired)
    assert wait(lambda: lab.answers(2), 5)
    assert boot_id(lab, 2) == before
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    assert not lab.succeeds(1, f"ping -c1 -W1 {lab.specs[2].ipv4}"), "the firewall is back"
    assert lab.output(1, "curl -sf http://169.254.169.254/hetzner/v1/metadata/hostname") == "web"


def test_uplink_and_machine_rules_removed(restarted: Lab) -> None:
    lab = restarted
    sh(f"ip link delete {lab.settings.uplink_interface}; nft delete table inet slipway_{lab.settings.name}")
    assert len(lab.machines.reconcile(lab.desired())) == 2
    assert lab.answers(1)


def test_after_a_restart_of_the_machine(restarted: Lab) -> None:
    """Only the folders exist: no processes, namespaces, mounts, loop devices."""
    lab = restarted
    lab.machines.reconcile(lab.desired())
    lab.output(2, "echo kept > /root/kept; sync")
    volume = VolumeSpec(95, 10, "ext4")
    lab.machines.create_volume(volume)
    lab.machines.attach_volume(95, 2)
    lab.machines.close()
    for record in containers.records(lab.settings.name).values():
        os.kill(record.pid, signal.SIGKILL)
    assert wait(lambda: not any(item.running for item in containers.records(lab.settings.name).values()))
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4]
        if target.startswith(f"{lab.settings.state_dir}/"):
            sh(f"umount {target}")
    sh(f"losetup --detach $(losetup --noheadings --output NAME -j {lab.settings.state_dir}/machines/volumes/95.img)")
    for name in namespaces.existing():
        if name.startswith(f"{lab.settings.name}-"):
            namespaces.delete(name)
    lab.machines = lab.fresh_machines()
    lab.machines.reconcile(lab.desired(volumes=(volume,), volume_attachments={95: 2}))
    lab.wait_for_ssh(2)
    assert lab.output(2, "cat /root/kept; ls /dev/disk/by-id") == "kept\nscsi-0HC_Volume_95"
    lab.machines.detach_volume(95, 2)
    lab.machines.delete_volume(95)


def test_undeclared_objects_are_removed(restarted: Lab) -> None:
    lab = restarted
    lab.boot(lab.spec(8))
    lab.machines.apply_network(NETWORKS[0])
    sh(f"ip netns add {lab.settings.network_namespace(777)}")
    lab.machines.create_volume(VolumeSpec(96, 10))
    done = lab.machines.reconcile(lab.desired())
    for words in ("undeclared server 8", "undeclared network 777", "undeclared volume 96"):
        assert any(words in line for line in done)
    assert lab.machines.state(8) is PowerState.ABSENT
    assert not [item for item in lab.leftovers() if item.endswith(("-h8", "-n777"))]


def test_power_states_are_reconciled(restarted: Lab) -> None:
    """Running, to be off: powered off. Powered itself off without a daemon: stays off, reported. Crashed: started."""
    lab = restarted
    lab.run(2, "systemctl poweroff")
    assert wait(lambda: not containers.records(lab.settings.name)[2].running)
    sh(f"podman kill {lab.settings.container_name(3)}")
    assert wait(lambda: not containers.records(lab.settings.name)[3].running)
    lab.machines.reconcile(lab.desired(running=frozenset({2, 3})))
    assert lab.machines.state(1) is PowerState.OFF
    assert lab.machines.state(2) is PowerState.OFF
    assert lab.exits == [(2, ExitReason.POWEROFF)]
    assert lab.machines.state(3) is PowerState.RUNNING


def test_faults_persist_over_a_restart_of_the_daemon(lab: Lab) -> None:
    lab.machines.set_fault(Fault(2, 50, cut=True))
    lab.machines.close()
    lab.machines = lab.fresh_machines()
    lab.machines.reconcile(lab.desired())
    assert lab.machines.faults() == [Fault(2, 50, cut=True)]
    assert not lab.succeeds(1, f"ping -c1 -W1 {LEGS[1].ip}")
    lab.machines.set_fault(Fault(2, 50))
    assert lab.succeeds(1, f"ping -c1 -W1 {LEGS[1].ip}")
