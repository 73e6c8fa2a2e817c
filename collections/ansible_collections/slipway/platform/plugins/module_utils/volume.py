"""The volume of a service: filesystem, mount unit, owner.

`plan` is pure. It never plans to write to a device that holds anything but the filesystem that this module created.
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
    """A fault; its text is the module's message."""


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
    """State of the device and of the mount point."""

    exists: bool
    known: tuple[str, ...] = ()
    """Names in /dev/disk/by-id, for the message."""
    block_device: bool = True
    node: str = ""
    """The device's own name, /dev/sdb."""
    size_bytes: int = 0
    signatures: tuple[str, ...] = ()
    """Signatures that wipefs and blkid report."""
    filesystem: str = ""
    label: str = ""
    uuid: str = ""
    filesystem_bytes: int = 0
    parts: tuple[str, ...] = ()
    """Partitions and other devices on top of it."""
    mounted_at: tuple[str, ...] = ()
    mounted_here: str = ""
    """Device that is mounted at the wanted path."""
    hidden: tuple[str, ...] = ()
    """Files of the directory that the mount would hide."""
    unit: str = ""
    """Current content of the mount unit."""
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
        # Wanted, not required: without its volume a host still boots and can be repaired; the service fails to start.
        "WantedBy=local-fs.target\n"
    )


def plan(wanted: Wanted, found: Found) -> Plan:
    """The changes; a VolumeError if the device or the mount point must not be changed."""
    validate(wanted, found)
    reasons = []
    make = not found.signatures
    if make:
        reasons.append(f"create a filesystem on {wanted.device}")
    # ext4 rounds down to complete block groups, so smaller differences are no growth.
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
        reasons.append(f"mount {wanted.device} at {wanted.path}")
    own = mount or (found.owner, found.group, found.mode) != (wanted.owner, wanted.group, wanted.mode)
    if own and not mount:
        reasons.append(f"set the owner of {wanted.path} to {wanted.owner}")
    return Plan(make, grow, write_unit, not found.enabled, mount, own, tuple(reasons))


def validate(wanted: Wanted, found: Found) -> None:
    """Raise a VolumeError for every state in which a change could destroy data."""
    if not wanted.device.startswith(BY_ID):
        raise VolumeError(
            f"{wanted.device} is no name below {BY_ID}; other names of a device change from boot to boot. "
            "Use the volume's own name, such as /dev/disk/by-id/scsi-0HC_Volume_1234."
        )
    if len(wanted.label) > LONGEST_LABEL:
        raise VolumeError(f"The label {wanted.label} is longer than {LONGEST_LABEL} characters, the maximum of ext4.")
    if not found.exists:
        raise VolumeError(
            f"{wanted.device} does not exist, this host has {', '.join(found.known) or 'no named device'}. "
            "Attach the volume (playbooks/provision.yml)."
        )
    if not found.block_device:
        raise VolumeError(f"{wanted.device} is no block device. Check what created it.")
    if found.mounted_here and found.mounted_here != found.node:
        raise VolumeError(
            f"{found.mounted_here} is mounted at {wanted.path} instead of {wanted.device} ({found.node}). "
            "Check its content, and unmount it."
        )
    elsewhere = [path for path in found.mounted_at if path != wanted.path]
    if elsewhere:
        raise VolumeError(
            f"{wanted.device} is mounted at {', '.join(elsewhere)}; it is in use. "
            f"Unmount it there, or set another device for {wanted.path}."
        )
    if found.parts:
        raise VolumeError(
            f"{wanted.device} contains {', '.join(found.parts)}; only an empty device without partitions is used. "
            "Set another device, or wipe this one by hand if it holds nothing."
        )
    if found.signatures and (found.filesystem, found.label) != ("ext4", wanted.label):
        raise VolumeError(
            f"{wanted.device} holds {', '.join(found.signatures)} and not the ext4 labelled {wanted.label} of this "
            "service; it is not changed. Set another device, or wipe this one by hand if it holds nothing."
        )
    if found.hidden and not found.mounted_here:
        raise VolumeError(
            f"{wanted.path} holds {', '.join(found.hidden[:5])} on the host's own disk, which the volume would hide. "
            "These files were written while the volume was not mounted: check and move them."
        )


def signatures(wipefs: Mapping[str, Any], probed: Mapping[str, str]) -> tuple[str, ...]:
    """Signatures of a device as `wipefs --json` and `blkid --probe --output export` report them."""
    words = []
    for entry in wipefs.get("signatures") or ():
        label = f" labelled {entry['label']}" if entry.get("label") else ""
        words.append(f"{entry['type']}{label}")
    for key in ("TYPE", "PTTYPE"):
        if probed.get(key) and not any(word.split(" ")[0] == probed[key] for word in words):
            words.append(probed[key])
    return tuple(dict.fromkeys(words))


def parse_export(output: str) -> dict[str, str]:
    """Read `blkid --output export`."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def devices_on_top(devices: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the devices that `lsblk --json` lists below the device itself."""
    found: list[str] = []
    for device in devices:
        for child in device.get("children") or ():
            found += [str(child["name"]), *devices_on_top([child])]
    return tuple(found)


def filesystem_bytes(dumpe2fs: str) -> int:
    """Size of an ext4 filesystem from the output of `dumpe2fs -h`."""
    values = dict(re.findall(r"^(Block count|Block size):\s+(\d+)$", dumpe2fs, re.M))
    return int(values.get("Block count", 0)) * int(values.get("Block size", 0))
