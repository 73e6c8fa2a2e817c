"""Snapshots of root disks, and hosts from them."""

from __future__ import annotations

import dataclasses

import pytest

from lab.machines.base import HostSpec, MachineError
from tests.lab.machines.conftest import Lab

pytestmark = pytest.mark.real


def test_a_host_from_a_snapshot_of_a_running_host(lab: Lab, spare: HostSpec) -> None:
    lab.boot(spare)
    lab.output(4, "echo golden > /root/kept; echo data > /var/lib/kept; cloud-init status --wait >/dev/null || true")
    old_keys = lab.output(4, "cat /etc/ssh/ssh_host_ed25519_key.pub")
    size_gb = lab.machines.create_snapshot(90, 4)
    assert 0 < size_gb < spare.disk_gb / 2, "the copy is sparse"
    assert lab.output(4, "touch /root/later; cat /root/kept") == "golden", "the host can write again"

    clone = dataclasses.replace(lab.spec(5), snapshot_id=90, disk_gb=40)
    lab.specs[5] = clone
    try:
        lab.boot(clone)
        assert lab.output(5, "cat /root/kept /var/lib/kept; hostname") == "golden\ndata\nserver-5"
        assert not lab.succeeds(5, "test -e /root/later")
        assert int(lab.output(5, "df --output=size -B1000000000 / | tail -1")) > 35, "the file system has grown"
        lab.output(5, "cloud-init status --wait >/dev/null || true")
        assert lab.output(5, "cat /etc/ssh/ssh_host_ed25519_key.pub") != old_keys, "cloud-init saw a new server"
        lab.machines.rebuild(dataclasses.replace(clone, snapshot_id=None))
        lab.machines.rebuild(clone)
        lab.boot(clone)
        assert lab.output(5, "cat /root/kept") == "golden"
    finally:
        lab.machines.delete_host(5)
        lab.machines.delete_snapshot(90)
    with pytest.raises(MachineError, match="the data of the snapshot is missing"):
        lab.machines.rebuild(dataclasses.replace(spare, snapshot_id=90))


def test_reconcile_removes_undeclared_snapshots_and_reports_missing_ones(lab: Lab, spare: HostSpec) -> None:
    for snapshot_id in (91, 92):
        lab.machines.create_snapshot(snapshot_id, 4)
    hosts = (*lab.desired().hosts, spare)
    changes = lab.machines.reconcile(lab.desired(hosts=hosts, snapshots=frozenset({92, 93})))
    assert changes == ["removed undeclared snapshot 91", "snapshot 93: its data is missing"]
    lab.machines.delete_snapshot(92)
