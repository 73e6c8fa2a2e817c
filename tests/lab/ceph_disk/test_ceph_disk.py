"""The guard before Ceph's disks, on real block devices: every state with its sentence, and not a byte written."""

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
    "mounted": "is in use: mounted at ",
    "elsewhere": "is in use: the kernel refuses to open it alone",
    "system": "the disk of this host's own system (mounted at /boot)",
    "locked": "is in use: a running OSD has it locked",
    "small": "is too small: 0.5 GB, and its volume is said to have 1 GB",
    "big": "is too big: 2.0 GB, and its volume is said to have 1 GB",
    "read_only": "can only be read",
    "ext4": "holds a file system or signature (ext4)",
    "xfs": "holds a file system or signature (xfs)",
    "swap": "holds swap space",
    "swapped_to": "is in use as swap",
    "lvm": "holds an LVM label",
    "gpt": "holds a GPT partition table",
    "mbr": "holds an MBR partition table",
    "partition": "has partitions (loop",
    "other": f"holds osd.7 of another cluster, 9b8a1111-2222-4333-8444-555566667777; ours is {OURS}",
    "copy": "holds osd.7 of another cluster",
    "broken": "holds a BlueStore label that cannot be read (its checksum is wrong)",
    "unknown": "holds data of no known form at its beginning",
    "other_lvm": "holds osd.4 of another cluster",
}

# The same whatever is confirmed.
NEVER = ("mounted", "elsewhere", "system", "locked", "small", "big", "read_only", "swapped_to")

PATHS = {
    "/dev/disk/by-id/scsi-0HC_Volume_8999": "does not exist. Attach the volume to this host",
    "/dev/disk/by-id/scsi-0HC_Volume_9099-part1": "a partition of loop",
    "/dev/disk/by-id/scsi-0HC_Volume_9100": "is no block device but a folder",
    "/dev/disk/by-id/wwn-0x9000": "are the same device (/dev/loop",
    "/dev/loop0": "is no name to keep",
}


@contextmanager
def in_use(bench: Bench) -> Iterator[None]:
    """A mount that only another namespace sees, a lock as an OSD's, and swap that is on."""
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
    """All disks judged at once; and asked to blank, with a confirmation of all that may never be confirmed."""
    paths = [*(disk.link for disk in bench.disks.values()), *PATHS]
    never = [str(bench.disks[name].number) for name in NEVER]
    with in_use(bench):
        judged = bench.judge(*paths)
        wiping = bench.judge(*paths, wipe=True, wipe_confirm=[*never, "9099-part1", "9100", "loop0"])
    return {"judged": judged, "wiping": wiping, "after": bench.digests()}


def by_path(answer: dict[str, Any]) -> dict[str, Any]:
    return {disk["path"]: disk for disk in answer["disks"]}


def test_what_is_good(bench: Bench, answers: dict[str, Any]) -> None:
    judged = by_path(answers["judged"])
    good = {name: judged[bench.disks[name].link] for name in ("blank", "ours", "our_lvm")}
    assert {name: disk["verdict"] for name, disk in good.items()} == {"blank": "blank", "ours": "osd", "our_lvm": "osd"}
    assert (good["ours"]["osd_id"], good["ours"]["osd_uuid"]) == (0, OSD)
    assert good["our_lvm"]["osd_id"] == 4
    assert answers["judged"]["changed"] is False


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(bench: Bench, answers: dict[str, Any], name: str) -> None:
    disk = bench.disks[name]
    for answer in ("judged", "wiping"):
        found = by_path(answers[answer])[disk.link]
        assert found["verdict"] == "refused"
        assert any(REFUSED[name] in fault for fault in found["faults"]), found["faults"]


@pytest.mark.parametrize("path", PATHS)
def test_names_that_are_refused(answers: dict[str, Any], path: str) -> None:
    found = by_path(answers["judged"])[path]
    assert found["verdict"] == "refused"
    assert PATHS[path] in found["faults"][0]


def test_all_faults_are_said_at_once_and_not_a_byte_was_written(bench: Bench, answers: dict[str, Any]) -> None:
    assert answers["wiping"]["failed"] is True
    assert all(sentence in answers["wiping"]["msg"] for sentence in (*REFUSED.values(), *PATHS.values()))
    # While it is on, the machine itself writes to its swap.
    before = {name: disk.before for name, disk in bench.disks.items() if name != "swapped_to"}
    assert before == {name: answers["after"][name] for name in before}


def test_the_machine_s_own_disks_are_refused(bench: Bench) -> None:
    own = {link: node for link, node in bench.links.items() if "/own" in link}
    judged = by_path(
        bench.judge(devices=[{"path": link} for link in own], wipe_confirm=[Path(link).name for link in own])
    )
    for link, node in own.items():
        assert judged[link]["verdict"] == "refused", node
        fault = judged[link]["faults"][0]
        assert "of this host's own system" in fault or "is in use: mounted at" in fault or "a partition of" in fault


def test_an_osd_of_ours_is_never_blanked_while_the_cluster_knows_it(bench: Bench) -> None:
    ours = bench.disks["ours"]
    for known in ({}, {"known_osds": {OSD: "0"}}):
        answer = bench.judge(ours.link, wipe=True, wipe_confirm=[str(ours.number)], **known)
        assert (answer["changed"], by_path(answer)[ours.link]["verdict"]) == (False, "osd")
    stray = bench.judge(ours.link, known_osds={"another": "1"})
    assert "which the cluster does not know" in by_path(stray)[ours.link]["faults"][0]
    assert ours.digest() == ours.before


def test_only_what_is_named_is_blanked(bench: Bench) -> None:
    """The last of the tests: from here on these disks are blank."""
    named = [bench.disks[name] for name in ("ext4", "xfs", "gpt", "mbr", "lvm", "swap", "other", "copy", "unknown")]
    kept = [bench.disks[name] for name in ("blank", "ours", "our_lvm")]
    links = [disk.link for disk in (*named, *kept)]
    numbers = [str(disk.number) for disk in named]
    before = bench.digests()

    first = bench.judge(*links, wipe=True, wipe_confirm=numbers[:-1])
    assert first["failed"] is True, "one of them is not named, so none is touched"
    rehearsal = bench.judge(*links, wipe=True, wipe_confirm=numbers, check=True)
    assert rehearsal["changed"] is True
    assert bench.digests() == before

    done = bench.judge(*links, wipe=True, wipe_confirm=numbers)
    assert done["changed"] is True
    verdicts = {path: disk["verdict"] for path, disk in by_path(done).items()}
    assert [verdicts[disk.link] for disk in named] == ["blank"] * len(named)
    assert [verdicts[disk.link] for disk in kept] == ["blank", "osd", "osd"]
    after = bench.digests()
    changed = {name for name in bench.disks if after[name] != before[name]}
    assert changed == {disk.name for disk in named}
    for disk in named:
        assert run("wipefs", "--no-act", disk.node) == ""

    again = bench.judge(*links, wipe=True, wipe_confirm=numbers)
    assert again["changed"] is False
    assert bench.digests() == after
