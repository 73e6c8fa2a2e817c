"""A volume for one service: what is on the device, and what it still needs before the service may write to it.

`plan` is pure. It never plans to write to a device that holds anything but the filesystem it was given here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BY_ID = "/dev/disk/by-id/"
LONGEST_LABEL = 16
"""Characters that ext4 keeps."""


class VolumeError(Exception):
    """A fault, told in a sentence that is fit to be the module's message."""


@dataclass(frozen=True)
class Wanted:
    device: str
    path: str
    label: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755
    options: str = "noatime,nodev,nosuid"


@dataclass(frozen=True)
class Found:
    """What the host says of the device and of the place where it is to be mounted."""

    exists: bool
    known: tuple[str, ...] = ()
    """Names in /dev/disk/by-id, for the message."""
    block_device: bool = True
    node: str = ""
    """The device's own name, /dev/sdb."""
    size_bytes: int = 0
    signatures: tuple[str, ...] = ()
    """What wipefs and blkid see, in words."""
    filesystem: str = ""
    label: str = ""
    uuid: str = ""
    filesystem_bytes: int = 0
    parts: tuple[str, ...] = ()
    """Partitions and other devices that stand on it."""
    mounted_at: tuple[str, ...] = ()
    mounted_here: str = ""
    """Device that is mounted at the wanted path."""
    hidden: tuple[str, ...] = ()
    """What lies in the folder that the volume would cover."""
    unit: str = ""
    """Present content of the mount unit."""
    enabled: bool = False
    owner: str = ""
    group: str = ""
    mode: int = 0


@dataclass(frozen=True)
class Plan:
    make_filesystem: bool = False
    grow: bool = False
    write_unit: bool = False
    enable: bool = False
    mount: bool = False
    own: bool = False
    reasons: tuple[str, ...] = field(default_factory=tuple)

    @property
    def changed(self) -> bool:
        return bool(self.reasons)


def escape(path: str) -> str:
    """Name of the mount unit of a path, as systemd-escape gives it."""

    def one(match: re.Match[str]) -> str:
        return "".join(f"\\x{byte:02x}" for byte in match[0].encode())

    inner = path.strip("/")
    escaped = "-".join(re.sub(r"[^A-Za-z0-9:_.]", one, part) for part in inner.split("/"))
    return f"{escaped or '-'}.mount"


def unit_text(wanted: Wanted) -> str:
    return (
        "# Written by slipway.platform.volume. Changes made here are overwritten.\n"
        "[Unit]\n"
        f"Description=Volume {wanted.label}\n"
        "Before=local-fs.target\n"
        "\n"
        "[Mount]\n"
        f"What={wanted.device}\n"
        f"Where={wanted.path}\n"
        "Type=ext4\n"
        f"Options={wanted.options}\n"
        "\n"
        "[Install]\n"
        # Wanted, not required: without its volume a host still boots and can be repaired; the service itself refuses.
        "WantedBy=local-fs.target\n"
    )


def plan(wanted: Wanted, found: Found) -> Plan:
    """What is to be done; a VolumeError where nothing may be."""
    judge(wanted, found)
    reasons = []
    make = not found.signatures
    if make:
        reasons.append(f"make a filesystem on {wanted.device}")
    # ext4 rounds down to whole groups of blocks; less than that is no growth.
    grow = not make and found.size_bytes - found.filesystem_bytes > 256 * 2**20
    if grow:
        reasons.append(f"grow the filesystem on {wanted.device} to {found.size_bytes >> 30} GiB")
    write_unit = found.unit != unit_text(wanted)
    if write_unit:
        reasons.append(f"write {escape(wanted.path)}")
    if not found.enabled:
        reasons.append(f"enable {escape(wanted.path)}")
    mount = not found.mounted_here
    if mount:
        reasons.append(f"mount it at {wanted.path}")
    own = mount or (found.owner, found.group, found.mode) != (wanted.owner, wanted.group, wanted.mode)
    if own and not mount:
        reasons.append(f"give {wanted.path} to {wanted.owner}")
    return Plan(make, grow, write_unit, not found.enabled, mount, own, tuple(reasons))


def judge(wanted: Wanted, found: Found) -> None:
    """Refuse whatever could cost somebody's data."""
    if not wanted.device.startswith(BY_ID):
        raise VolumeError(
            f"{wanted.device} is no name below {BY_ID}; other names of a device change from boot to boot. "
            "Give the volume's own, such as /dev/disk/by-id/scsi-0HC_Volume_1234."
        )
    if len(wanted.label) > LONGEST_LABEL:
        raise VolumeError(f"The label {wanted.label} is longer than {LONGEST_LABEL} characters, which ext4 keeps.")
    if not found.exists:
        raise VolumeError(
            f"{wanted.device} is not there, this host has {', '.join(found.known) or 'no named device'}. "
            "Attach the volume (playbooks/provision.yml)."
        )
    if not found.block_device:
        raise VolumeError(f"{wanted.device} is no block device; look at what made it.")
    if found.mounted_here and found.mounted_here != found.node:
        raise VolumeError(
            f"{found.mounted_here} is mounted at {wanted.path}, where {wanted.device} ({found.node}) belongs. "
            "Find out what it holds, and unmount it."
        )
    elsewhere = [place for place in found.mounted_at if place != wanted.path]
    if elsewhere:
        raise VolumeError(
            f"{wanted.device} is mounted at {', '.join(elsewhere)}; it is in use by something else. "
            f"Unmount it there, or name another device for {wanted.path}."
        )
    if found.parts:
        raise VolumeError(
            f"{wanted.device} carries {', '.join(found.parts)}; only a whole, empty device is taken. "
            "Name another device, or wipe this one by hand if it holds nothing."
        )
    if found.signatures and (found.filesystem, found.label) != ("ext4", wanted.label):
        raise VolumeError(
            f"{wanted.device} holds {', '.join(found.signatures)} and not the ext4 labelled {wanted.label} that was "
            "made here; it is not touched. Name another device, or wipe this one by hand if it holds nothing."
        )
    if found.hidden and not found.mounted_here:
        raise VolumeError(
            f"{wanted.path} holds {', '.join(found.hidden[:5])} on the host's own disk, which the volume would cover. "
            "Something wrote there while the volume was not mounted: look at it and move it away."
        )


def signatures(wipefs: Mapping[str, Any], probed: Mapping[str, str]) -> tuple[str, ...]:
    """Words for all that two programs see on a device: `wipefs --json` and `blkid --probe --output export`."""
    words = []
    for entry in wipefs.get("signatures") or ():
        label = f" labelled {entry['label']}" if entry.get("label") else ""
        words.append(f"{entry['type']}{label}")
    for key in ("TYPE", "PTTYPE"):
        if probed.get(key) and not any(word.split(" ")[0] == probed[key] for word in words):
            words.append(probed[key])
    return tuple(dict.fromkeys(words))


def exported(output: str) -> dict[str, str]:
    """Read `blkid --output export`."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def standing_on(devices: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of what `lsblk --json` shows below the device itself."""
    found: list[str] = []
    for device in devices:
        for child in device.get("children") or ():
            found += [str(child["name"]), *standing_on([child])]
    return tuple(found)


def filesystem_bytes(dumpe2fs: str) -> int:
    """Size of an ext4 filesystem from the head of `dumpe2fs -h`."""
    values = dict(re.findall(r"^(Block count|Block size):\s+(\d+)$", dumpe2fs, re.M))
    return int(values.get("Block count", 0)) * int(values.get("Block size", 0))
