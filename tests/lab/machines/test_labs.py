"""Two labs at the same time, and the removal of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.machines.base import AttachmentSpec, FirewallRule, FirewallSpec, VolumeSpec
from lab.settings import Settings
from tests.lab.machines.conftest import LEGS, NETWORKS, Lab, free_slot

pytestmark = pytest.mark.real


def test_a_second_lab_beside_the_first(lab: Lab, key: Path) -> None:
    """Same ids, same private range: nothing is shared, and removing one keeps the other."""
    second = Lab(Settings(f"{lab.settings.name[:4]}zz", free_slot()), key)
    assert second.leftovers() == []
    try:
        second.machines.apply_network(NETWORKS[0])
        second.boot(second.spec(1, name="twin"))
        second.machines.attach(AttachmentSpec(1, 50, LEGS[0].ip, LEGS[0].mac_address, "enp7s0"))
        second.machines.create_volume(VolumeSpec(97, 10))
        second.machines.attach_volume(97, 1)
        second.machines.apply_firewall(FirewallSpec(70, (FirewallRule("in", "tcp", "22", ("0.0.0.0/0",)),)))
        second.machines.set_host_firewalls(1, [70])
        assert second.output(1, "hostname") == "twin"
        assert lab.output(1, "hostname") == "web"
        assert not second.succeeds(1, f"ping -c1 -W1 {lab.specs[1].ipv4}")
        assert not second.succeeds(1, "ping -c1 -W1 10.40.1.11")
        assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    finally:
        second.machines.destroy()
    assert second.leftovers() == []
    assert not (second.settings.state_dir / "machines").exists()
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1", "the first lab still needs it"
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")


def test_destroy_needs_no_state_of_the_daemon(lab: Lab, key: Path) -> None:
    """A new process without state removes the whole lab; a second run finds nothing."""
    second = Lab(Settings(f"{lab.settings.name[:4]}zz", free_slot()), key)
    second.machines.apply_network(NETWORKS[0])
    second.boot(second.spec(1))
    second.machines.close()
    second_backend = second.fresh_machines()
    second_backend.destroy()
    second_backend.destroy()
    assert second.leftovers() == []
