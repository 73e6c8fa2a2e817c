"""Verdicts over disks: what is taken for an OSD, what is refused and with which sentence, what may be blanked."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import cluster_faults, judge, volume_id

OURS = "0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11"
OTHER = "9b8a1111-2222-4333-8444-555566667777"
UUID = "f57afca2-3db0-4bd8-8a0c-0d1f0f5d9a01"
PATH = "/dev/disk/by-id/scsi-0HC_Volume_103"
GB = 2**30


def disk(**changes: Any) -> dict[str, Any]:
    """A blank volume of 10 GB."""
    return {
        "path": PATH,
        "size_gb": 10,
        "error": "",
        "kind": "block",
        "device": "/dev/sdb",
        "number": "8:16",
        "partition_of": "",
        "partitions": [],
        "holders": [],
        "size": 10 * GB,
        "read_only": False,
        "mounts": [],
        "swaps": [],
        "busy": False,
        "locked": False,
        "signatures": [],
        "label": None,
        "label_error": "",
        "logical_volumes": [],
        "zero": True,
        **changes,
    }


def label(fsid: str = OURS, offset: int = 0, **meta: str) -> dict[str, Any]:
    values = {"ceph_fsid": fsid, "whoami": "3", "ready": "ready", **meta}
    return {
        "osd_uuid": UUID,
        "size": 10 * GB,
        "description": "main",
        "meta": {name: value for name, value in values.items() if value},
        "offset": offset,
    }


def osd(**changes: Any) -> dict[str, Any]:
    signatures = [{"type": "ceph_bluestore", "offset": "0x0"}]
    return disk(**{"label": label(), "signatures": signatures, "zero": False, **changes})


def logical(fsid: str) -> list[dict[str, str]]:
    return [{"ceph.type": "block", "ceph.cluster_fsid": fsid, "ceph.osd_id": "4", "ceph.osd_fsid": UUID}]


def verdict(facts: dict[str, Any], **options: Any) -> dict[str, Any]:
    return judge([facts], fsid=OURS, **options)[0]


def signature(*kinds: str) -> dict[str, Any]:
    return disk(signatures=[{"type": kind, "offset": "0x0"} for kind in kinds], zero=False)


CONTENTS = {
    "ext4": (signature("ext4"), "holds a file system or signature (ext4)"),
    "xfs": (signature("xfs"), "holds a file system or signature (xfs)"),
    "swap": (signature("swap"), "holds swap space"),
    "lvm": (signature("LVM2_member"), "holds an LVM label"),
    "gpt": (signature("gpt", "gpt", "PMBR"), "holds a GPT partition table."),
    "mbr": (signature("dos"), "holds an MBR partition table"),
    "gpt and ext4": (signature("gpt", "ext4"), "holds a GPT partition table and a file system or signature (ext4)"),
    "luks": (signature("crypto_LUKS"), "holds a LUKS header"),
    "raid": (signature("linux_raid_member"), "holds a member of a Linux RAID"),
    "partitions": (disk(partitions=["sdb1"]), "has partitions (sdb1)"),
    "unknown data": (disk(zero=False), "holds data of no known form"),
    "other cluster": (osd(label=label(OTHER)), f"holds osd.3 of another cluster, {OTHER}; ours is {OURS}"),
    "copy of an other cluster's label": (osd(label=label(OTHER, offset=GB)), "holds osd.3 of another cluster"),
    "unfinished": (osd(label=label("", whoami="", ready="")), "holds an unfinished OSD"),
    "broken label": (osd(label=None, label_error="its checksum is wrong"), "cannot be read (its checksum is wrong)"),
    "bare magic": (osd(label=None), "holds a BlueStore label"),
    "other cluster's LVM": (
        disk(signatures=[{"type": "LVM2_member", "offset": "0x218"}], logical_volumes=logical(OTHER), zero=False),
        "holds osd.4 of another cluster",
    ),
    "somebody's LVM": (
        disk(signatures=[{"type": "LVM2_member", "offset": "0x218"}], logical_volumes=[{}], zero=False),
        "holds an LVM label",
    ),
}

NEVER = {
    "no by-id path": (disk(path="/dev/sdb"), "/dev/sdb is no name to keep"),
    "by-path": (disk(path="/dev/disk/by-path/pci-1"), "Name the device by its link in /dev/disk/by-id"),
    "by-id climbing out": (disk(path="/dev/disk/by-id/../../sda"), "is no name to keep"),
    "missing": (disk(kind="missing"), "does not exist. Attach the volume"),
    "a file": (disk(kind="a file"), "is no block device but a file"),
    "unreadable": (disk(error="[Errno 5] Input/output error"), "could not be read: [Errno 5] Input/output error"),
    "partition": (disk(device="/dev/sdb1", partition_of="sdb"), "is /dev/sdb1, a partition of sdb"),
    "root disk": (disk(mounts=["/", "/boot/efi"]), "the disk of this host's own system (mounted at /, /boot/efi)"),
    "mounted": (disk(mounts=["/srv/data"]), "is in use: mounted at /srv/data"),
    "swapped to": (disk(swaps=["/dev/sdb"]), "is in use as swap"),
    "held": (disk(holders=["dm-0"]), "is in use: dm-0 stands on it"),
    "in use elsewhere": (disk(busy=True), "is in use: the kernel refuses to open it alone"),
    "locked": (disk(locked=True), "is in use: a running OSD has it locked"),
    "too small": (disk(size=9 * GB), "is too small: 9.0 GB, and its volume is said to have 10 GB"),
    "too big": (disk(size=11 * GB), "is too big: 11.0 GB, and its volume is said to have 10 GB"),
    "read only": (disk(read_only=True), "can only be read"),
}


def test_a_blank_volume_is_taken() -> None:
    assert verdict(disk())["verdict"] == "blank"
    assert verdict(disk())["faults"] == []


def test_the_size_may_be_said_in_either_kind_of_gb() -> None:
    assert verdict(disk(size=10 * 10**9))["verdict"] == "blank"
    assert verdict(disk(size=123, size_gb=0))["verdict"] == "blank"


@pytest.mark.parametrize("known", [None, {UUID: "3"}])
def test_an_osd_of_ours_is_done(known: dict[str, str] | None) -> None:
    found = verdict(osd(), known_osds=known)
    assert (found["verdict"], found["osd_id"], found["osd_uuid"], found["faults"]) == ("osd", 3, UUID, [])


def test_a_running_osd_of_ours_is_done_though_in_use_and_though_its_volume_grew() -> None:
    assert verdict(osd(busy=True, locked=True, size=20 * GB))["verdict"] == "osd"
    facts = disk(
        signatures=[{"type": "LVM2_member", "offset": "0x218"}],
        logical_volumes=logical(OURS),
        holders=["dm-0"],
        busy=True,
        zero=False,
    )
    found = verdict(facts)
    assert (found["verdict"], found["osd_id"], found["osd_uuid"]) == ("osd", 4, UUID)


@pytest.mark.parametrize("known", [None, {UUID: "3"}])
def test_an_osd_of_ours_is_never_blanked(known: dict[str, str] | None) -> None:
    assert verdict(osd(), known_osds=known, wipe_confirm=["103"])["verdict"] == "osd"
    damaged = verdict(osd(label=label(offset=GB)), known_osds=known, wipe_confirm=["103"])
    assert damaged["verdict"] == "refused"
    assert "holds osd.3 of this cluster, damaged" in damaged["faults"][0]
    assert "Once that OSD is purged" in damaged["faults"][0]


def test_an_osd_of_ours_that_the_cluster_does_not_know_is_refused_unless_named() -> None:
    stray = verdict(osd(), known_osds={})
    assert stray["verdict"] == "refused"
    assert "and there is no cluster: found no new one" in stray["faults"][0]
    assert "which the cluster does not know any more" in verdict(osd(), known_osds={"other": "1"})["faults"][0]
    assert verdict(osd(), known_osds={}, wipe_confirm=["103"])["verdict"] == "wipe"


@pytest.mark.parametrize("case", CONTENTS)
def test_contents_are_refused_unless_the_volume_is_named(case: str) -> None:
    facts, sentence = CONTENTS[case]
    refused = verdict(facts)
    assert refused["verdict"] == "refused"
    assert len(refused["faults"]) == 1
    assert sentence in refused["faults"][0]
    assert "Nothing was written" in refused["faults"][0]
    assert "name 103 in ceph_osd_wipe_confirm" in refused["faults"][0]
    assert verdict(facts, wipe_confirm=["104", "scsi-0HC_Volume_103", PATH])["verdict"] == "refused"
    named = verdict(facts, wipe_confirm=["103"])
    assert (named["verdict"], named["faults"]) == ("wipe", [])


@pytest.mark.parametrize("case", NEVER)
def test_what_is_refused_whatever_is_confirmed(case: str) -> None:
    facts, sentence = NEVER[case]
    own = volume_id(facts["path"])
    for full in (facts, facts | {"signatures": [{"type": "ext4", "offset": "0x438"}], "zero": False}):
        found = verdict(full, wipe_confirm=[own])
        assert found["verdict"] == "refused"
        assert sentence in found["faults"][0]
        assert verdict(full)["verdict"] == "refused"


def test_all_faults_of_a_disk_are_said_at_once() -> None:
    found = verdict(disk(size=GB, holders=["dm-0"], signatures=[{"type": "xfs", "offset": "0x0"}], zero=False))
    assert [part in fault for part, fault in zip(("too small", "dm-0", "xfs"), found["faults"], strict=True)] == [
        True
    ] * 3


def test_a_device_is_named_once() -> None:
    twice = judge([disk(), disk()], fsid=OURS)
    assert [one["verdict"] for one in twice] == ["blank", "refused"]
    assert "is named twice" in twice[1]["faults"][0]
    links = judge([disk(), disk(path="/dev/disk/by-id/wwn-0x1")], fsid=OURS)
    assert f"/dev/disk/by-id/wwn-0x1 and {PATH} are the same device (/dev/sdb)" in links[1]["faults"][0]
    gone = judge([disk(kind="missing", number=""), disk(path=PATH + "4", kind="missing", number="")], fsid=OURS)
    assert all("does not exist" in one["faults"][0] for one in gone)


def test_only_the_named_volume_is_blanked() -> None:
    first, second = signature("ext4"), signature("ext4") | {"path": PATH + "4", "number": "8:32"}
    found = judge([first, second], fsid=OURS, wipe_confirm=["1034"])
    assert [one["verdict"] for one in found] == ["refused", "wipe"]


def test_names_of_volumes() -> None:
    assert volume_id(PATH) == "103"
    assert volume_id("/dev/disk/by-id/nvme-Samsung_1") == "nvme-Samsung_1"


def test_the_whole_cluster_is_said_at_once() -> None:
    good, bad = judge([osd()], fsid=OURS), judge([disk(kind="missing")], fsid=OURS)
    found = cluster_faults({"one": good, "two": bad, "three": good})
    assert found[0].startswith(f"two: {PATH} does not exist")
    assert found[1].startswith(f"{PATH} of three and {PATH} of one hold the same osd.3")
    assert cluster_faults({"one": good}) == []
