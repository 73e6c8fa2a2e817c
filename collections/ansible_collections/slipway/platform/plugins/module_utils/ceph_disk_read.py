"""Read a disk without writing to it, and wipe one. Needs no program of Ceph, which a new host does not have."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

SYS = Path("/sys/dev/block")

# Where BlueStore keeps copies of its label (bluestore_bdev_label_multi): the first 4 KiB, and these.
GIB = 2**30
LABEL_OFFSETS = (0, GIB, 10 * GIB, 100 * GIB, 1000 * GIB)
LABEL_SIZE = 4096
LABEL_MAGIC = b"bluestore block device\n"

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

HEAD = 10 * 2**20  # as much as `ceph-volume lvm zap` clears
CHUNK = 2**20
BLKRRPART = 0x125F
LIBBLKID_NOTHING_FOUND = 2


class DiskError(Exception):
    """A device that could not be read or wiped; the text gives the reason."""


# --- BlueStore's label ----------------------------------------------------------------------------------------------


class LabelError(Exception):
    """A block that has the magic of a label but is no valid label."""


def crc32c(data: bytes, value: int = 0xFFFFFFFF) -> int:
    """Ceph's checksum of a label: CRC-32C without the final inversion."""
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


def parse_label(block: bytes) -> dict[str, Any] | None:
    """The BlueStore label at the beginning of `block`, None without one.

    Layout: magic and OSD UUID as text; then, in Ceph's encoding, version, compatible version, length, UUID,
    device size, creation time, description, and a map of names to values; last the checksum of all before.
    """
    if not block.startswith(LABEL_MAGIC):
        return None
    start = len(LABEL_MAGIC) + 37
    try:
        version, oldest, length = struct.unpack_from("<BBI", block, start)
        end = start + 6 + length
        if oldest > 2 or end + 4 > len(block):
            raise LabelError(f"unknown version {version} with length {length}")
        if struct.unpack_from("<I", block, end)[0] != crc32c(block[:end]):
            raise LabelError("wrong checksum")
        offset = start + 6
        uuid = str(UUID(bytes=block[offset : offset + 16]))
        (size,) = struct.unpack_from("<Q", block, offset + 16)
        offset += 32  # UUID, size and creation time
        description, offset = _text(block, offset)
        meta: dict[str, str] = {}
        if version >= 2:
            (count,) = struct.unpack_from("<I", block, offset)
            offset += 4
            for _ in range(count):
                name, offset = _text(block, offset)
                meta[name], offset = _text(block, offset)
    except (struct.error, UnicodeDecodeError) as error:
        raise LabelError(str(error)) from error
    meta.pop("osd_key", None)  # the OSD's secret
    return {"osd_uuid": uuid, "size": size, "description": description, "meta": meta}


def _text(block: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", block, offset)
    offset += 4
    return block[offset : offset + length].decode(), offset + length


# --- state in the kernel --------------------------------------------------------------------------------------------


def read_disk(path: str, size_gb: float) -> dict[str, Any]:
    """The facts for a verdict; a failed read is stored in `error`, which makes the verdict refused."""
    facts: dict[str, Any] = {
        "path": path,
        "size_gb": size_gb,
        "error": "",
        "kind": "missing",
        "device": "",
        "number": "",
        "partition_of": "",
        "partitions": [],
        "holders": [],
        "size": 0,
        "read_only": False,
        "mounts": [],
        "swaps": [],
        "busy": False,
        "locked": False,
        "signatures": [],
        "label": None,
        "label_error": "",
        "logical_volumes": [],
        "zero": False,
    }
    try:
        _read(Path(path), facts)
    except (OSError, DiskError, ValueError, KeyError, subprocess.SubprocessError) as error:
        facts["error"] = str(error) or type(error).__name__
    return facts


def _read(path: Path, facts: dict[str, Any]) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    facts["device"] = str(path.resolve())
    if not stat.S_ISBLK(status.st_mode):
        facts["kind"] = "a folder" if stat.S_ISDIR(status.st_mode) else "a file"
        return
    facts["kind"] = "block"
    facts["number"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    node = (SYS / facts["number"]).resolve(strict=True)
    if (node / "partition").exists():
        facts["partition_of"] = node.parent.name
    facts["partitions"] = sorted(entry.parent.name for entry in node.glob("*/partition"))
    facts["holders"] = sorted(_names(node / "holders"))
    for part in facts["partitions"]:
        facts["holders"] += sorted(_names(node / part / "holders"))
    facts["size"] = int((node / "size").read_text()) * 512
    facts["read_only"] = (node / "ro").read_text().strip() != "0"
    facts["mounts"] = sorted(target for target, number in mounts() if number in stacked_devices(node))
    facts["swaps"] = [name for name in swaps() if Path(name).exists() and _number(name) in stacked_devices(node)]
    if facts["partition_of"]:
        return
    facts["busy"], facts["locked"] = probe_use(path)
    facts["signatures"] = read_signatures(path)
    with path.open("rb", buffering=0) as device:
        _read_labels(device.fileno(), facts)
        facts["zero"] = all(not any(os.pread(device.fileno(), CHUNK, offset)) for offset in range(0, HEAD, CHUNK))
    if any(entry["type"] == "LVM2_member" for entry in facts["signatures"]):
        facts["logical_volumes"] = read_logical_volumes(facts["device"])


def _read_labels(device: int, facts: dict[str, Any]) -> None:
    """The first label found, at its primary offset or at that of a copy."""
    for offset in LABEL_OFFSETS:
        if offset + LABEL_SIZE > facts["size"]:
            return
        try:
            label = parse_label(os.pread(device, LABEL_SIZE, offset))
        except LabelError as error:
            facts["label_error"] = str(error)
            continue
        if label is not None:
            facts["label"] = label | {"offset": offset}
            return


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _number(name: str) -> str:
    number = Path(name).stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def stacked_devices(node: Path) -> set[str]:
    """Device numbers of a disk, its partitions and all mappings on them (LVM, RAID, encryption)."""
    numbers = {(node / "dev").read_text().strip()}
    for part in node.glob("*/partition"):
        numbers |= stacked_devices(part.parent)
    for holder in _names(node / "holders"):
        numbers |= stacked_devices((node / "holders" / holder).resolve())
    return numbers


def mounts() -> list[tuple[str, str]]:
    """Mount points, each with the number of its device."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        number, target = fields.split()[2], fields.split()[4]
        source = rest.split()[1]
        # btrfs and others give a mount an anonymous device number.
        if number.startswith("0:") and source.startswith("/dev/") and Path(source).exists():
            number = _number(source)
        found.append((target.replace("\\040", " "), number))
    return found


def swaps() -> list[str]:
    return [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]


def probe_use(path: Path) -> tuple[bool, bool]:
    """Whether an exclusive open fails with EBUSY, and whether BlueStore's lock on the device is held."""
    try:
        device = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        busy = False
    except OSError as error:
        if error.errno != 16:  # EBUSY
            raise
        device, busy = os.open(path, os.O_RDONLY | os.O_CLOEXEC), True
    try:
        fcntl.flock(device, fcntl.LOCK_SH | fcntl.LOCK_NB)
        locked = False
    except BlockingIOError:
        locked = True
    finally:
        os.close(device)
    return busy, locked


# --- contents -------------------------------------------------------------------------------------------------------


def _output(command: list[str], good: tuple[int, ...] = (0,)) -> str:
    environment = {"PATH": PATH, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise DiskError(f"{command[0]} is not installed") from error
    if done.returncode not in good:
        raise DiskError(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def parse_signatures(wipefs: str, blkid: str) -> list[dict[str, str]]:
    """All signatures that libblkid detects: wipefs lists each one, blkid adds types inside a partition table."""
    found = [
        {"type": entry["type"], "offset": entry["offset"]}
        for entry in (json.loads(wipefs)["signatures"] if wipefs.strip() else [])
    ]
    values = dict(line.split("=", 1) for line in blkid.splitlines() if "=" in line)
    for key in ("TYPE", "PTTYPE"):
        if values.get(key) and values[key] not in {entry["type"] for entry in found}:
            found.append({"type": values[key], "offset": ""})
    return found


def read_signatures(path: Path) -> list[dict[str, str]]:
    wipefs = _output(["wipefs", "--no-act", "--json", str(path)])
    # blkid exits with 8 for ambiguous signatures; wipefs has listed them.
    blkid = _output(["blkid", "--probe", "--output", "export", str(path)], (0, LIBBLKID_NOTHING_FOUND, 8))
    return parse_signatures(wipefs, blkid)


def parse_logical_volumes(report: str) -> list[dict[str, str]]:
    """The tags of each logical volume, in which ceph-volume stores the OSD's properties."""
    rows = [row for part in json.loads(report)["report"] for kind in part.values() for row in kind]
    return [
        dict(tag.split("=", 1) for tag in row["lv_tags"].split(",") if "=" in tag) for row in rows if row.get("lv_name")
    ]


def read_logical_volumes(device: str) -> list[dict[str, str]]:
    if shutil.which("pvs", path=PATH) is None:
        return []  # without LVM on this host, no OSD of this cluster is on a logical volume
    command = ["pvs", "--segments", "--readonly", "--devices", device, "--reportformat", "json"]
    return parse_logical_volumes(_output([*command, "--options", "pv_name,vg_name,lv_name,lv_tags"]))


# --- wiping ---------------------------------------------------------------------------------------------------------


def wipe(path: str) -> None:
    """Zero all signatures and labels of a device. Fails unless the device can be opened exclusively."""
    try:
        device = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{path}: exclusive open failed: {error.strerror}") from error
    try:
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.lseek(device, 0, os.SEEK_END)
        found = [int(entry["offset"], 16) for entry in read_signatures(Path(path)) if entry["offset"]]
        ranges = [(offset, LABEL_SIZE) for offset in (*LABEL_OFFSETS, *found)]
        for offset, length in (*ranges, (max(size - HEAD, 0), HEAD), (0, HEAD)):
            _zero(device, offset, min(length, size - offset))
        os.fsync(device)
        _reread_partition_table(device)
    except BlockingIOError as error:
        raise DiskError(f"{path}: locked by a running OSD") from error
    finally:
        os.close(device)


def _zero(device: int, offset: int, length: int) -> None:
    while length > 0:
        written = os.pwrite(device, bytes(min(length, CHUNK)), offset)
        offset, length = offset + written, length - written


def _reread_partition_table(device: int) -> None:
    """Let the kernel read the now empty partition table. The error of a device without partition support is ignored."""
    ctypes.CDLL(None).ioctl(device, BLKRRPART)
