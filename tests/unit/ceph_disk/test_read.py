"""Reading a disk: BlueStore's label, and the output of wipefs, blkid and pvs."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_disk_read as read

OSD = UUID("f57afca2-3db0-4bd8-8a0c-0d1f0f5d9a01")


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def label(meta: dict[str, str], version: int = 2) -> bytes:
    body = OSD.bytes + struct.pack("<QII", 10 * 2**30, 0, 0) + text("main")
    body += struct.pack("<I", len(meta)) + b"".join(text(name) + text(value) for name, value in meta.items())
    block = read.LABEL_MAGIC + f"{OSD}\n".encode() + struct.pack("<BBI", version, 1, len(body)) + body
    return (block + struct.pack("<I", read.crc32c(block))).ljust(read.LABEL_SIZE, b"\0")


def test_checksum_is_ceph_s() -> None:
    assert read.crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_a_label_is_read_without_its_secret() -> None:
    found = read.parse_label(label({"ceph_fsid": "x", "whoami": "3", "ready": "ready", "osd_key": "AQ=="}))
    assert found == {
        "osd_uuid": str(OSD),
        "size": 10 * 2**30,
        "description": "main",
        "meta": {"ceph_fsid": "x", "whoami": "3", "ready": "ready"},
    }


def test_no_label() -> None:
    assert read.parse_label(bytes(read.LABEL_SIZE)) is None
    assert read.parse_label(b"") is None


@pytest.mark.parametrize(
    "block",
    [
        read.LABEL_MAGIC,
        read.LABEL_MAGIC + f"{OSD}\n".encode(),
        label({"whoami": "3"})[:100],
        label({"whoami": "3"}).replace(b"whoami", b"whoamj"),
        label({"whoami": "3"}, version=2).replace(struct.pack("<BB", 2, 1), struct.pack("<BB", 9, 9), 1),
    ],
)
def test_a_damaged_label_is_an_error(block: bytes) -> None:
    with pytest.raises(read.LabelError):
        read.parse_label(block)


def test_signatures_are_those_of_both_tools() -> None:
    wipefs = '{"signatures": [{"device": "sdb", "offset": "0x1fe", "type": "dos", "uuid": null, "label": null}]}'
    assert read.parse_signatures(wipefs, "DEVNAME=/dev/sdb\nPTTYPE=dos\n") == [{"type": "dos", "offset": "0x1fe"}]
    assert read.parse_signatures('{"signatures": []}', "TYPE=odd\n") == [{"type": "odd", "offset": ""}]
    assert read.parse_signatures("", "") == []


def test_tags_of_logical_volumes() -> None:
    report = (
        '{"report": [{"pvseg": [{"pv_name": "/dev/sdb", "vg_name": "v", "lv_name": "osd", "lv_tags": '
        '"ceph.osd_id=4,ceph.type=block"}, {"pv_name": "/dev/sdb", "vg_name": "v", "lv_name": "", "lv_tags": ""}]}]}'
    )
    assert read.parse_logical_volumes(report) == [{"ceph.osd_id": "4", "ceph.type": "block"}]


def test_a_failed_read_is_stored_as_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise read.DiskError("wipefs is not installed")

    monkeypatch.setattr(read, "_read", broken)
    assert read.read_disk("/dev/disk/by-id/x", 10)["error"] == "wipefs is not installed"


def device(root: Path, name: str, number: str, holders: tuple[str, ...] = (), parent: str = "") -> Path:
    """A block device as sysfs shows it."""
    node = root / "devices" / parent / name
    (node / "holders").mkdir(parents=True)
    (node / "dev").write_text(f"{number}\n")
    for holder in holders:
        (node / "holders" / holder).symlink_to(root / "devices" / holder)
    if parent:
        (node / "partition").write_text("1\n")
    return node


def test_stacked_devices_include_partitions_and_mappings(tmp_path: Path) -> None:
    disk = device(tmp_path, "sda", "8:0")
    device(tmp_path, "sda1", "8:1", ("md0",), parent="sda")
    device(tmp_path, "md0", "9:0", ("dm-3",))
    device(tmp_path, "dm-3", "253:3")
    device(tmp_path, "sdb", "8:16")
    assert read.stacked_devices(disk) == {"8:0", "8:1", "9:0", "253:3"}
