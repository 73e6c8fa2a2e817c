"""Verdicts of disks: which are OSDs, which are refused and with which message, which may be wiped."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import classify, cluster_faults, volume_id

OURS = "0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11"
OTHER = "9b8a1111-2222-4333-8444-555566667777"
UUID = "f57afca2-3db0-4bd8-8a0c-0d1f0f5d9a01"
PATH = "/dev/disk/by-id/scsi-0HC_Volume_103"
GB = 2**30


def disk(**changes: Any) -> dict[str, Any]:
    """An empty volume of 10 GB."""
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
    return classify([facts], fsid=OURS, **options)[0]


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
    "unknown data": (disk(zero=False), "holds data of an unknown format"),
    "other cluster": (osd(label=label(OTHER)), f"holds osd.3 of another cluster, {OTHER}; ceph_fsid is {OURS}"),
    "copy of an other cluster's label": (osd(label=label(OTHER, offset=GB)), "holds osd.3 of another cluster"),
    "unfinished": (osd(label=label("", whoami="", ready="")), "holds an unfinished OSD"),
    "broken label": (osd(label=None, label_error="wrong checksum"), "cannot be read (wrong checksum)"),
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
    "no by-id path": (disk(path="/dev/sdb"), "/dev/sdb: not a stable name"),
    "by-path": (disk(path="/dev/disk/by-path/pci-1"), "Give the device by its link in /dev/disk/by-id"),
    "by-id climbing out": (disk(path="/dev/disk/by-id/../../sda"), "not a stable name"),
    "missing": (disk(kind="missing"), "does not exist. Attach the volume"),
    "a file": (disk(kind="a file"), "not a block device but a file"),
    "unreadable": (disk(error="[Errno 5] Input/output error"), "read failed: [Errno 5] Input/output error"),
    "partition": (disk(device="/dev/sdb1", partition_of="sdb"), "is /dev/sdb1, a partition of sdb"),
    "root disk": (disk(mounts=["/", "/boot/efi"]), "this host's system disk (mounted at /, /boot/efi)"),
    "mounted": (disk(mounts=["/srv/data"]), "in use, mounted at /srv/data"),
    "swapped to": (disk(swaps=["/dev/sdb"]), "in use as swap"),
    "held": (disk(holders=["dm-0"]), "in use by dm-0"),
    "in use elsewhere": (disk(busy=True), "in use, an exclusive open fails with EBUSY"),
    "locked": (disk(locked=True), "in use, locked by a running OSD"),
    "too small": (disk(size=9 * GB), "too small, 9.0 GB instead of 10 GB"),
    "too big": (disk(size=11 * GB), "too big, 11.0 GB instead of 10 GB"),
    "read only": (disk(read_only=True), "read-only"),
}


def test_an_empty_volume_is_accepted() -> None:
    assert verdict(disk())["verdict"] == "empty"
    assert verdict(disk())["faults"] == []


def test_the_size_may_be_decimal_or_binary() -> None:
    assert verdict(disk(size=10 * 10**9))["verdict"] == "empty"
    assert verdict(disk(size=123, size_gb=0))["verdict"] == "empty"


@pytest.mark.parametrize("known", [None, {UUID: "3"}])
def test_an_osd_of_this_cluster_is_accepted(known: dict[str, str] | None) -> None:
    found = verdict(osd(), known_osds=known)
    assert (found["verdict"], found["osd_id"], found["osd_uuid"], found["faults"]) == ("osd", 3, UUID, [])


def test_a_running_osd_is_accepted_though_in_use_and_resized() -> None:
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
def test_an_osd_of_this_cluster_is_never_wiped(known: dict[str, str] | None) -> None:
    assert verdict(osd(), known_osds=known, wipe_confirm=["103"])["verdict"] == "osd"
    damaged = verdict(osd(label=label(offset=GB)), known_osds=known, wipe_confirm=["103"])
    assert damaged["verdict"] == "refused"
    assert "holds osd.3 of this cluster, damaged" in damaged["faults"][0]
    assert "After the OSD is purged" in damaged["faults"][0]


def test_an_osd_missing_from_the_osd_map_is_refused_unless_confirmed() -> None:
    stray = verdict(osd(), known_osds={})
    assert stray["verdict"] == "refused"
    assert "and there is no cluster: bootstrap no new one" in stray["faults"][0]
    assert "which is not in the OSD map" in verdict(osd(), known_osds={"other": "1"})["faults"][0]
    assert verdict(osd(), known_osds={}, wipe_confirm=["103"])["verdict"] == "wipe"


@pytest.mark.parametrize("case", CONTENTS)
def test_contents_are_refused_unless_the_volume_is_confirmed(case: str) -> None:
    facts, message = CONTENTS[case]
    refused = verdict(facts)
    assert refused["verdict"] == "refused"
    assert len(refused["faults"]) == 1
    assert message in refused["faults"][0]
    assert "Nothing was written" in refused["faults"][0]
    assert "add 103 to ceph_osd_wipe_confirm" in refused["faults"][0]
    assert verdict(facts, wipe_confirm=["104", "scsi-0HC_Volume_103", PATH])["verdict"] == "refused"
    named = verdict(facts, wipe_confirm=["103"])
    assert (named["verdict"], named["faults"]) == ("wipe", [])


@pytest.mark.parametrize("case", NEVER)
def test_faults_that_no_confirmation_lifts(case: str) -> None:
    facts, message = NEVER[case]
    own = volume_id(facts["path"])
    for full in (facts, facts | {"signatures": [{"type": "ext4", "offset": "0x438"}], "zero": False}):
        found = verdict(full, wipe_confirm=[own])
        assert found["verdict"] == "refused"
        assert message in found["faults"][0]
        assert verdict(full)["verdict"] == "refused"


def test_all_faults_of_a_disk_are_reported_at_once() -> None:
    found = verdict(disk(size=GB, holders=["dm-0"], signatures=[{"type": "xfs", "offset": "0x0"}], zero=False))
    assert [part in fault for part, fault in zip(("too small", "dm-0", "xfs"), found["faults"], strict=True)] == [
        True
    ] * 3


def test_a_device_is_listed_once() -> None:
    twice = classify([disk(), disk()], fsid=OURS)
    assert [one["verdict"] for one in twice] == ["empty", "refused"]
    assert "listed twice" in twice[1]["faults"][0]
    links = classify([disk(), disk(path="/dev/disk/by-id/wwn-0x1")], fsid=OURS)
    assert f"/dev/disk/by-id/wwn-0x1 and {PATH}: the same device (/dev/sdb)" in links[1]["faults"][0]
    gone = classify([disk(kind="missing", number=""), disk(path=PATH + "4", kind="missing", number="")], fsid=OURS)
    assert all("does not exist" in one["faults"][0] for one in gone)


def test_only_the_confirmed_volume_is_wiped() -> None:
    first, second = signature("ext4"), signature("ext4") | {"path": PATH + "4", "number": "8:32"}
    found = classify([first, second], fsid=OURS, wipe_confirm=["1034"])
    assert [one["verdict"] for one in found] == ["refused", "wipe"]


def test_volume_ids() -> None:
    assert volume_id(PATH) == "103"
    assert volume_id("/dev/disk/by-id/nvme-Samsung_1") == "nvme-Samsung_1"


def test_faults_of_all_hosts_are_reported_at_once() -> None:
    good, bad = classify([osd()], fsid=OURS), classify([disk(kind="missing")], fsid=OURS)
    found = cluster_faults({"one": good, "two": bad, "three": good})
    assert found[0].startswith(f"two: {PATH}: does not exist")
    assert found[1].startswith(f"{PATH} of three and {PATH} of one: both hold osd.3")
    assert cluster_faults({"one": good}) == []
