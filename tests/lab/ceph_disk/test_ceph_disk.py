"""ceph_disk on real block devices: every state with its message, and no byte written."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ceph_disk.conftest import OSD, OURS, Bench, namespace, run

pytestmark = pytest.mark.real

REFUSED = {
    "mounted": "in use, mounted at ",
    "elsewhere": "in use, an exclusive open fails with EBUSY",
    "system": "this host's system disk (mounted at /boot)",
    "locked": "in use, locked by a running OSD",
    "small": "too small, 0.5 GB instead of 1 GB",
    "big": "too big, 2.0 GB instead of 1 GB",
    "read_only": "read-only",
    "ext4": "holds a file system or signature (ext4)",
    "xfs": "holds a file system or signature (xfs)",
    "swap": "holds swap space",
    "swapped_to": "in use as swap",
    "lvm": "holds an LVM label",
    "gpt": "holds a GPT partition table",
    "mbr": "holds an MBR partition table",
    "partition": "has partitions (loop",
    "other": f"holds osd.7 of another cluster, 9b8a1111-2222-4333-8444-555566667777; ceph_fsid is {OURS}",
    "copy": "holds osd.7 of another cluster",
    "broken": "holds a BlueStore label that cannot be read (wrong checksum)",
    "unknown": "holds data of an unknown format at its beginning",
    "other_lvm": "holds osd.4 of another cluster",
}

# Faults that no confirmation lifts.
NEVER = ("mounted", "elsewhere", "system", "locked", "small", "big", "read_only", "swapped_to")

PATHS = {
    "/dev/disk/by-id/scsi-0HC_Volume_8999": "does not exist. Attach the volume to this host",
    "/dev/disk/by-id/scsi-0HC_Volume_9099-part1": "a partition of loop",
    "/dev/disk/by-id/scsi-0HC_Volume_9100": "not a block device but a folder",
    "/dev/disk/by-id/wwn-0x9000": "the same device (/dev/loop",
    "/dev/loop0": "not a stable name",
}


@contextmanager
def in_use(bench: Bench) -> Iterator[None]:
    """A mount in another namespace, a lock like an OSD's, and active swap."""
    swap = bench.disks["swapped_to"].node
    run("swapon", swap)
    try:
        with (
            namespace(f"mount -o ro {bench.disks['elsewhere'].node} /mnt"),
            Path(bench.disks["locked"].node).open("rb") as device,
        ):
            fcntl.flock(device, fcntl.LOCK_EX)
            yield
    finally:
        run("swapoff", swap)


@pytest.fixture(scope="module")
def answers(bench: Bench) -> dict[str, Any]:
    """All disks classified in one call; and in a call to wipe them, with confirmations that must be ignored."""
    paths = [*(disk.link for disk in bench.disks.values()), *PATHS]
    never = [str(bench.disks[name].number) for name in NEVER]
    with in_use(bench):
        classified = bench.run_module(*paths)
        wiping = bench.run_module(*paths, wipe=True, wipe_confirm=[*never, "9099-part1", "9100", "loop0"])
    return {"classified": classified, "wiping": wiping, "after": bench.digests()}


def by_path(answer: dict[str, Any]) -> dict[str, Any]:
    return {disk["path"]: disk for disk in answer["disks"]}


def test_accepted_disks(bench: Bench, answers: dict[str, Any]) -> None:
    classified = by_path(answers["classified"])
    accepted = {name: classified[bench.disks[name].link] for name in ("empty", "ours", "our_lvm")}
    assert {name: disk["verdict"] for name, disk in accepted.items()} == {
        "empty": "empty",
        "ours": "osd",
        "our_lvm": "osd",
    }
    assert (accepted["ours"]["osd_id"], accepted["ours"]["osd_uuid"]) == (0, OSD)
    assert accepted["our_lvm"]["osd_id"] == 4
    assert answers["classified"]["changed"] is False


@pytest.mark.parametrize("name", REFUSED)
def test_refused_disks(bench: Bench, answers: dict[str, Any], name: str) -> None:
    disk = bench.disks[name]
    for answer in ("classified", "wiping"):
        found = by_path(answers[answer])[disk.link]
        assert found["verdict"] == "refused"
        assert any(REFUSED[name] in fault for fault in found["faults"]), found["faults"]


@pytest.mark.parametrize("path", PATHS)
def test_refused_paths(answers: dict[str, Any], path: str) -> None:
    found = by_path(answers["classified"])[path]
    assert found["verdict"] == "refused"
    assert PATHS[path] in found["faults"][0]


def test_all_faults_are_reported_at_once_and_no_byte_was_written(bench: Bench, answers: dict[str, Any]) -> None:
    assert answers["wiping"]["failed"] is True
    assert all(message in answers["wiping"]["msg"] for message in (*REFUSED.values(), *PATHS.values()))
    # The kernel writes to active swap.
    before = {name: disk.before for name, disk in bench.disks.items() if name != "swapped_to"}
    assert before == {name: answers["after"][name] for name in before}


def test_the_machine_s_own_disks_are_refused(bench: Bench) -> None:
    own = {link: node for link, node in bench.links.items() if "/own" in link}
    classified = by_path(
        bench.run_module(devices=[{"path": link} for link in own], wipe_confirm=[Path(link).name for link in own])
    )
    for link, node in own.items():
        assert classified[link]["verdict"] == "refused", node
        fault = classified[link]["faults"][0]
        assert "this host's system disk" in fault or "in use, mounted at" in fault or "a partition of" in fault


def test_an_osd_in_the_osd_map_is_never_wiped(bench: Bench) -> None:
    ours = bench.disks["ours"]
    for known in ({}, {"known_osds": {OSD: "0"}}):
        answer = bench.run_module(ours.link, wipe=True, wipe_confirm=[str(ours.number)], **known)
        assert (answer["changed"], by_path(answer)[ours.link]["verdict"]) == (False, "osd")
    stray = bench.run_module(ours.link, known_osds={"another": "1"})
    assert "which is not in the OSD map" in by_path(stray)[ours.link]["faults"][0]
    assert ours.digest() == ours.before


def test_only_confirmed_devices_are_wiped(bench: Bench) -> None:
    """The last of the tests: it wipes these disks."""
    confirmed = [bench.disks[name] for name in ("ext4", "xfs", "gpt", "mbr", "lvm", "swap", "other", "copy", "unknown")]
    kept = [bench.disks[name] for name in ("empty", "ours", "our_lvm")]
    links = [disk.link for disk in (*confirmed, *kept)]
    numbers = [str(disk.number) for disk in confirmed]
    before = bench.digests()

    first = bench.run_module(*links, wipe=True, wipe_confirm=numbers[:-1])
    assert first["failed"] is True, "one of them is not confirmed, so none is wiped"
    preview = bench.run_module(*links, wipe=True, wipe_confirm=numbers, check=True)
    assert preview["changed"] is True
    assert bench.digests() == before

    done = bench.run_module(*links, wipe=True, wipe_confirm=numbers)
    assert done["changed"] is True
    verdicts = {path: disk["verdict"] for path, disk in by_path(done).items()}
    assert [verdicts[disk.link] for disk in confirmed] == ["empty"] * len(confirmed)
    assert [verdicts[disk.link] for disk in kept] == ["empty", "osd", "osd"]
    after = bench.digests()
    changed = {name for name in bench.disks if after[name] != before[name]}
    assert changed == {disk.name for disk in confirmed}
    for disk in confirmed:
        assert run("wipefs", "--no-act", disk.node) == ""

    again = bench.run_module(*links, wipe=True, wipe_confirm=numbers)
    assert again["changed"] is False
    assert bench.digests() == after
