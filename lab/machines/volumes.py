"""Volumes: one sparse file each, on a loop device while attached to a server."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.machines.base import MachineError, VolumeSpec
from lab.machines.commands import CommandError, run

LINKS = "/dev/disk/by-id"
FORMATS = {"ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard"], "xfs": ["mkfs.xfs", "-q", "-f", "-K"]}
_BLKID_NOTHING_FOUND = 2
_LOCK = Path("/run/lock/slipway-loop")


@dataclass(frozen=True, slots=True)
class Device:
    """The block device of a volume in a host."""

    volume_id: int
    node: str
    major: int
    minor: int

    @property
    def serial(self) -> str:
        return f"0HC_Volume_{self.volume_id}"

    @property
    def link(self) -> str:
        return f"{LINKS}/scsi-{self.serial}"

    @property
    def line(self) -> str:
        """The device's line in the table that the entrypoint of a host reads."""
        return f"{self.major} {self.minor} {self.node} {self.serial}"


def attach_script(device: Device, mount: bool, filesystem: str) -> str:
    """Shell script for a running host: create the node, the link and udev's record, as a hot plug does."""
    return "\n".join([*_node_lines(device), *(_mount_lines(device, filesystem) if mount else [])])


def detach_script(device: Device) -> str:
    """Shell script for a running host: remove the disk."""
    name, number = f"/dev/{device.node}", f"b{device.major}:{device.minor}"
    return "\n".join(
        [
            f"for target in $(findmnt --noheadings --output TARGET --source {name}); do umount --lazy $target; done",
            f"sed -i '\\#^{device.link} #d' /etc/fstab",
            f"rm -f {device.link} {name} /run/udev/data/{number} /run/udev/tags/systemd/{number}",
        ]
    )


def fstab_script(device: Device, filesystem: str) -> str:
    """Shell script for the root of a host that is off: mount the volume at the next start."""
    return "\n".join(_mount_lines(device, filesystem)[:-1])


def _node_lines(device: Device) -> list[str]:
    link = f"S:disk/by-id/scsi-{device.serial}"
    record = f"{link}\\nI:1\\nE:ID_BUS=scsi\\nE:ID_SERIAL={device.serial}\\nG:systemd\\nQ:systemd\\nV:1\\n"
    return [
        "set -e",
        f"mkdir -p {LINKS} /run/udev/data /run/udev/tags/systemd",
        f"[ -b /dev/{device.node} ] || mknod -m 660 /dev/{device.node} b {device.major} {device.minor}",
        f"ln -sfn ../../{device.node} {device.link}",
        f"printf '{record}' > /run/udev/data/b{device.major}:{device.minor}",
        f": > /run/udev/tags/systemd/b{device.major}:{device.minor}",
    ]


def _mount_lines(device: Device, filesystem: str) -> list[str]:
    target = f"/mnt/HC_Volume_{device.volume_id}"
    return [
        f"mkdir -p {target}",
        f"grep -q '^{device.link} ' /etc/fstab || "
        f"echo '{device.link} {target} {filesystem} discard,nofail,defaults 0 0' >> /etc/fstab",
        f"mountpoint -q {target} || mount {target}",
    ]


class Volumes:
    """The volumes of one lab, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, volume_id: int) -> Path:
        return self._folder / f"{volume_id}.img"

    def ids(self) -> set[int]:
        return {int(path.stem) for path in self._folder.glob("*.img")}

    def create(self, spec: VolumeSpec) -> None:
        target = self.path(spec.volume_id)
        if target.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        with fresh.open("wb") as file:
            file.truncate(spec.size_gb * 2**30)
        if spec.format:
            if spec.format not in FORMATS:
                raise MachineError(f"volume format {spec.format!r} is unknown. Use {' or '.join(FORMATS)}.")
            run([*FORMATS[spec.format], str(fresh)])
        fresh.rename(target)

    def resize(self, spec: VolumeSpec) -> None:
        target = self._existing(spec.volume_id)
        if target.stat().st_size >= spec.size_gb * 2**30:
            return
        with target.open("r+b") as file:
            file.truncate(spec.size_gb * 2**30)
        node = self._loop(spec.volume_id)
        if node:
            run(["losetup", "--set-capacity", node])

    def delete(self, volume_id: int) -> None:
        with _loop_lock():
            node = self._loop(volume_id)
            if node:
                run(["losetup", "--detach", node])
        self.path(volume_id).unlink(missing_ok=True)

    def device(self, volume_id: int) -> Device:
        """The volume's loop device, set up if missing. The volume keeps it until the volume is deleted."""
        target = self._existing(volume_id)
        with _loop_lock():
            node = self._loop(volume_id) or run(["losetup", "--find", "--show", str(target)]).strip()
        number = Path(node).stat().st_rdev
        return Device(volume_id, Path(node).name, os.major(number), os.minor(number))

    def filesystem(self, volume_id: int) -> str:
        """Type of the volume's file system, as in mount(8); empty without one."""
        try:
            return run(["blkid", "--output", "value", "--match-tag", "TYPE", str(self._existing(volume_id))]).strip()
        except CommandError as error:
            if error.returncode == _BLKID_NOTHING_FOUND:
                return ""
            raise

    def _existing(self, volume_id: int) -> Path:
        target = self.path(volume_id)
        if not target.exists():
            raise MachineError(f"volume {volume_id} has no data in {self._folder}. Delete and create the volume again.")
        return target

    def _loop(self, volume_id: int) -> str:
        """The loop device of the volume's file; empty without one."""
        return loop_of(self.path(volume_id))


def loop_of(path: Path) -> str:
    if not path.exists():
        return ""
    found = re.match(r"(/dev/loop\d+):", run(["losetup", "--associated", str(path)]))
    return found[1] if found else ""


@contextmanager
def _loop_lock() -> Iterator[None]:
    """Serialize the allocation of loop devices: finding a free one and attaching it are two steps."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
