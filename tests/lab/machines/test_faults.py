"""Faults of links."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.machines.base import Fault, MachineError
from lab.machines.delay import message, packets
from lab.machines.faults import render
from tests.lab.machines.conftest import Lab


def test_rules_of_a_namespace() -> None:
    assert render([]) == "table inet faults\ndelete table inet faults\n"
    text = render([Fault(1, None, cut=True), Fault(2, None, loss_percent=30)])
    assert 'iifname "p1" drop' in text and 'oifname "p1" drop' in text
    assert 'oifname "p2" numgen random mod 100 < 30 drop' in text
    assert 'iifname "v2"' not in render([Fault(2, 50, loss_percent=30)])


def test_queue_messages() -> None:
    packet = message(3 << 8, 7, [(1, bytes.fromhex("0000002a0800000000"))])
    assert packets(packet + packet) == [(7, 42), (7, 42)]
    assert packets(message((3 << 8) | 2, 7, [])) == []


@pytest.fixture
def faultless(lab: Lab) -> Iterator[Lab]:
    yield lab
    for fault in lab.machines.faults():
        lab.machines.set_fault(Fault(fault.server_id, fault.network_id))
    assert lab.machines.faults() == []


@pytest.mark.real
def test_cut_and_heal_one_link(faultless: Lab) -> None:
    lab = faultless
    lab.machines.set_fault(Fault(2, 50, cut=True))
    assert lab.machines.faults() == [Fault(2, 50, cut=True)]
    assert not lab.succeeds(1, "ping -c1 -W1 10.40.1.11")
    assert lab.answers(2)
    lab.machines.set_fault(Fault(2, None, cut=True))
    assert not lab.answers(2)
    # A cut link stays cut after a restart of the host.
    lab.machines.power_off(2)
    lab.machines.power_on(lab.specs[2])
    assert not lab.answers(2)
    lab.machines.set_fault(Fault(2, None))
    lab.machines.set_fault(Fault(2, 50))
    lab.wait_for_ssh(2)
    assert lab.succeeds(1, "ping -c1 -W1 10.40.1.11")


@pytest.mark.real
def test_loss(faultless: Lab) -> None:
    lab = faultless
    lab.machines.set_fault(Fault(2, 50, loss_percent=40))
    found = re.search(r"([\d.]+)% packet loss", lab.run(1, "ping -q -c200 -i0.005 -W1 10.40.1.11").stdout)
    assert found and 25 <= float(found[1]) <= 55


@pytest.mark.real
def test_delay(faultless: Lab) -> None:
    lab = faultless
    lab.machines.set_fault(Fault(2, 50, delay_ms=60))
    found = re.search(r"= [\d.]+/([\d.]+)/", lab.output(1, "ping -q -c10 -i0.1 10.40.1.11"))
    assert found and 58 <= float(found[1]) <= 90
    lab.machines.set_fault(Fault(2, 50))
    found = re.search(r"= [\d.]+/([\d.]+)/", lab.output(1, "ping -q -c5 -i0.1 10.40.1.11"))
    assert found and float(found[1]) < 20


@pytest.mark.real
def test_values_out_of_range_are_rejected(lab: Lab) -> None:
    with pytest.raises(MachineError, match="0 to 100"):
        lab.machines.set_fault(Fault(2, None, loss_percent=101))


@pytest.mark.real
def test_fill_and_free_a_disk(faultless: Lab) -> None:
    lab = faultless
    write = "dd if=/dev/zero of={} bs=1M count=30 conv=fsync"
    # The root file system and /var/lib are on one disk.
    for path in ("/var/tmp/filling", "/var/lib/filling"):
        lab.machines.fill_disk(2, 10)
        assert lab.machines.filled_disks() == {2: 10}
        assert "No space left" in lab.run(2, write.format(path)).stderr
        lab.machines.fill_disk(2, None)
        assert lab.machines.filled_disks() == {}
        assert lab.succeeds(2, f"{write.format(path)} && rm {path}")
