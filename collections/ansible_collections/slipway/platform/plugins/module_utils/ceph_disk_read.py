"""Read a disk without writing to it, and blank one. No program of Ceph is needed: at first a host has none."""

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

HEAD = 10 * 2**20  # what ceph-volume clears when it zaps, too
CHUNK = 2**20
BLKRRPART = 0x125F
LIBBLKID_NOTHING_FOUND = 2


class DiskError(Exception):
    """A device that could not be read or blanked; the text says why."""


# --- BlueStore's label ----------------------------------------------------------------------------------------------


class LabelError(Exception):
    """Bytes that begin as a label and do not go on as one."""


def crc32c(data: bytes, value: int = 0xFFFFFFFF) -> int:
    """Ceph's checksum of a label: CRC-32C without the final inversion."""
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


def parse_label(block: bytes) -> dict[str, Any] | None:
    """The label of BlueStore at the beginning of `block`, None where there is none.

    The magic and the OSD's uuid as text; then, as Ceph encodes it: version, oldest reader, length, uuid, size of the
    device, time of birth, description, and names with values; last the checksum of all before.
    """
    if not block.startswith(LABEL_MAGIC):
        return None
    start = len(LABEL_MAGIC) + 37
    try:
        version, oldest, length = struct.unpack_from("<BBI", block, start)
        end = start + 6 + length
        if oldest > 2 or end + 4 > len(block):
            raise LabelError(f"version {version} of a length of {length} is not known")
        if struct.unpack_from("<I", block, end)[0] != crc32c(block[:end]):
            raise LabelError("its checksum is wrong")
        place = start + 6
        uuid = str(UUID(bytes=block[place : place + 16]))
        (size,) = struct.unpack_from("<Q", block, place + 16)
        place += 32  # the uuid, the size, and the time of birth
        description, place = _text(block, place)
        meta: dict[str, str] = {}
        if version >= 2:
            (count,) = struct.unpack_from("<I", block, place)
            place += 4
            for _ in range(count):
                name, place = _text(block, place)
                meta[name], place = _text(block, place)
    except (struct.error, UnicodeDecodeError) as error:
        raise LabelError(str(error)) from error
    meta.pop("osd_key", None)  # the OSD's secret
    return {"osd_uuid": uuid, "size": size, "description": description, "meta": meta}


def _text(block: bytes, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", block, place)
    place += 4
    return block[place : place + length].decode(), place + length


# --- what the kernel knows ------------------------------------------------------------------------------------------


def read_disk(path: str, size_gb: float) -> dict[str, Any]:
    """The facts that a verdict rests on; what cannot be read ends in `error`, and with it in a refusal."""
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
    facts["mounts"] = sorted(target for target, number in mounts() if number in below(node))
    facts["swaps"] = [name for name in swaps() if Path(name).exists() and _number(name) in below(node)]
    if facts["partition_of"]:
        return
    facts["busy"], facts["locked"] = probe_use(path)
    facts["signatures"] = read_signatures(path)
    with path.open("rb", buffering=0) as device:
        _read_labels(device.fileno(), facts)
        facts["zero"] = all(not any(os.pread(device.fileno(), CHUNK, place)) for place in range(0, HEAD, CHUNK))
    if any(entry["type"] == "LVM2_member" for entry in facts["signatures"]):
        facts["logical_volumes"] = read_logical_volumes(facts["device"])


def _read_labels(device: int, facts: dict[str, Any]) -> None:
    """The first label found, at its own place or at that of a copy."""
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


def below(node: Path) -> set[str]:
    """Numbers of a disk, of its partitions and of all that stands on them (LVM, RAID, encryption)."""
    found = {(node / "dev").read_text().strip()}
    for part in node.glob("*/partition"):
        found |= below(part.parent)
    for holder in _names(node / "holders"):
        found |= below((node / "holders" / holder).resolve())
    return found


def mounts() -> list[tuple[str, str]]:
    """Where something is mounted, and the number of the device it is on."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        number, target = fields.split()[2], fields.split()[4]
        source = rest.split()[1]
        # btrfs and its like give a mount a number of its own.
        if number.startswith("0:") and source.startswith("/dev/") and Path(source).exists():
            number = _number(source)
        found.append((target.replace("\\040", " "), number))
    return found


def swaps() -> list[str]:
    return [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]


def probe_use(path: Path) -> tuple[bool, bool]:
    """Whether the kernel refuses to open a device alone, and whether somebody holds BlueStore's lock on it."""
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


# --- what lies on it ------------------------------------------------------------------------------------------------


def _output(command: list[str], good: tuple[int, ...] = (0,)) -> str:
    environment = {"PATH": PATH, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    except FileNotFoundError as error:
        raise DiskError(f"{command[0]} is not installed") from error
    if done.returncode not in good:
        raise DiskError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def parse_signatures(wipefs: str, blkid: str) -> list[dict[str, str]]:
    """All that libblkid finds: wipefs lists every signature, blkid weighs them and sees what stands inside a table."""
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
    # 8 is blkid's answer to signatures that contradict each other; wipefs has listed them.
    blkid = _output(["blkid", "--probe", "--output", "export", str(path)], (0, LIBBLKID_NOTHING_FOUND, 8))
    return parse_signatures(wipefs, blkid)


def parse_logical_volumes(report: str) -> list[dict[str, str]]:
    """The tags of each logical volume: ceph-volume writes there what it knows of its OSD."""
    rows = [row for part in json.loads(report)["report"] for kind in part.values() for row in kind]
    return [
        dict(tag.split("=", 1) for tag in row["lv_tags"].split(",") if "=" in tag) for row in rows if row.get("lv_name")
    ]


def read_logical_volumes(device: str) -> list[dict[str, str]]:
    if shutil.which("pvs", path=PATH) is None:
        return []  # without LVM here, no OSD of ours is on it
    command = ["pvs", "--segments", "--readonly", "--devices", device, "--reportformat", "json"]
    return parse_logical_volumes(_output([*command, "--options", "pv_name,vg_name,lv_name,lv_tags"]))


# --- blanking -------------------------------------------------------------------------------------------------------


def blank(path: str) -> None:
    """Take a device out of every table of contents. The kernel has to agree that nobody else has it open."""
    try:
        device = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{path} cannot be opened alone: {error.strerror}") from error
    try:
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.lseek(device, 0, os.SEEK_END)
        found = [int(entry["offset"], 16) for entry in read_signatures(Path(path)) if entry["offset"]]
        places = [(offset, LABEL_SIZE) for offset in (*LABEL_OFFSETS, *found)]
        for offset, length in (*places, (max(size - HEAD, 0), HEAD), (0, HEAD)):
            _zero(device, offset, min(length, size - offset))
        os.fsync(device)
        _forget_partitions(device)
    except BlockingIOError as error:
        raise DiskError(f"{path} is locked by a running OSD") from error
    finally:
        os.close(device)


def _zero(device: int, offset: int, length: int) -> None:
    while length > 0:
        written = os.pwrite(device, bytes(min(length, CHUNK)), offset)
        offset, length = offset + written, length - written


def _forget_partitions(device: int) -> None:
    """Make the kernel read the (empty) partition table again; a device that never has partitions refuses, and may."""
    ctypes.CDLL(None).ioctl(device, BLKRRPART)
