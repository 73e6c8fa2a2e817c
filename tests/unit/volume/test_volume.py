"""What is done to a volume, and above all what is not: the plan from what a host message of a device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.volume import (
    Found,
    VolumeError,
    Wanted,
    devices_on_top,
    escape,
    filesystem_bytes,
    parse_export,
    plan,
    signatures,
    unit_text,
)

GIB = 2**30
DEVICE = "/dev/disk/by-id/scsi-0HC_Volume_7"
WANTED = Wanted(DEVICE, "/var/lib/postgresql", "postgresql", "postgres", "postgres")
EMPTY = Found(exists=True, node="/dev/sdb", size_bytes=10 * GIB)
MOUNTED = Found(
    exists=True,
    node="/dev/sdb",
    size_bytes=10 * GIB,
    signatures=("ext4 labelled postgresql",),
    filesystem="ext4",
    label="postgresql",
    uuid="1",
    filesystem_bytes=10 * GIB,
    mounted_at=(WANTED.path,),
    mounted_here="/dev/sdb",
    unit=unit_text(WANTED),
    enabled=True,
    owner="postgres",
    group="postgres",
    mode=0o755,
)


def test_an_empty_device_gets_everything() -> None:
    planned = plan(WANTED, EMPTY)
    assert (planned.make_filesystem, planned.write_unit, planned.enable, planned.mount, planned.own) == (True,) * 5
    assert not planned.grow
    assert planned.reasons[0] == f"create a filesystem on {DEVICE}"


def test_a_mounted_volume_needs_no_change() -> None:
    assert not plan(WANTED, MOUNTED).changed


def test_a_volume_of_a_former_host_is_only_mounted() -> None:
    found = replace(MOUNTED, mounted_at=(), mounted_here="", unit="", enabled=False, owner="root", group="root")
    planned = plan(WANTED, found)
    assert not planned.make_filesystem
    assert planned.mount and planned.write_unit and planned.enable and planned.own


def test_a_grown_volume_grows_its_filesystem() -> None:
    planned = plan(WANTED, replace(MOUNTED, size_bytes=12 * GIB))
    assert planned.grow and planned.reasons == (f"grow the filesystem on {DEVICE} to 12 GiB",)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Found(exists=False, known=("scsi-0HC_Volume_8",)), "does not exist, this host has scsi-0HC_Volume_8"),
        (Found(exists=True, block_device=False), "is no block device"),
        (replace(EMPTY, signatures=("xfs",), filesystem="xfs"), "holds xfs and not the ext4 labelled postgresql"),
        (replace(EMPTY, signatures=("ext4",), filesystem="ext4"), "holds ext4 and not"),
        (
            replace(EMPTY, signatures=("ext4 labelled other",), filesystem="ext4", label="other"),
            "holds ext4 labelled other",
        ),
        (replace(EMPTY, signatures=("ceph_bluestore",)), "holds ceph_bluestore"),
        (replace(EMPTY, signatures=("LVM2_member",), parts=("vg-lv",)), "contains vg-lv"),
        (
            replace(EMPTY, signatures=("dos",), parts=("sdb1",)),
            "contains sdb1; only an empty device",
        ),
        (replace(EMPTY, signatures=("gpt",)), "holds gpt"),
        (replace(MOUNTED, mounted_at=("/srv",), mounted_here=""), "is mounted at /srv"),
        (replace(EMPTY, mounted_here="/dev/sdc"), "/dev/sdc is mounted at /var/lib/postgresql"),
        (replace(EMPTY, hidden=("17",)), "holds 17 on the host's own disk"),
    ],
)
def test_what_is_never_touched(found: Found, message: str) -> None:
    with pytest.raises(VolumeError) as caught:
        plan(WANTED, found)
    assert message in str(caught.value)


def test_only_names_that_stay_are_taken() -> None:
    with pytest.raises(VolumeError, match="is no name below /dev/disk/by-id/"):
        plan(replace(WANTED, device="/dev/sdb"), EMPTY)


def test_a_label_that_would_be_cut_is_refused() -> None:
    with pytest.raises(VolumeError, match="longer than 16"):
        plan(replace(WANTED, label="a-label-of-seventeen"), EMPTY)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/lib/postgresql", "var-lib-postgresql.mount"),
        ("/srv/my-data", "srv-my\\x2ddata.mount"),
        ("/", "-.mount"),
    ],
)
def test_names_of_mount_units(path: str, name: str) -> None:
    assert escape(path) == name


def test_output_of_programs() -> None:
    wipefs = {"signatures": [{"type": "ext4", "label": "postgresql"}, {"type": "dos", "label": None}]}
    assert signatures(wipefs, {"TYPE": "ext4"}) == ("ext4 labelled postgresql", "dos")
    assert signatures({}, {}) == ()
    assert signatures({}, {"TYPE": "ceph_bluestore"}) == ("ceph_bluestore",)
    assert parse_export("DEVNAME=/dev/sdb\nTYPE=ext4\n") == {"DEVNAME": "/dev/sdb", "TYPE": "ext4"}
    assert devices_on_top([{"name": "sdb", "children": [{"name": "sdb1", "children": [{"name": "vg"}]}]}]) == (
        "sdb1",
        "vg",
    )
    assert filesystem_bytes("Block count:              2621440\nBlock size:               4096\n") == 10 * GIB
