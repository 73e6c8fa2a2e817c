"""Root disks: one sparse ext4 image per server. It holds the upper layer of an overlay over the host image.

The image gives each host the disk size of its server type (it can be filled), outlives the container (which is one
boot) and is removed as one file. /var/lib is on the ext4 itself, not on the overlay: containers in a host need a file
system that can be the upper layer of their own overlay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lab.machines.base import MachineError
from lab.machines.commands import CommandError, run
from lab.machines.volumes import loop_of

E2FSCK_CORRECTED = 1
COPY = ("cp", "--sparse=always", "--reflink=auto")
FROZEN = 'mount=$1; shift; fsfreeze --freeze "$mount" && trap "fsfreeze --unfreeze \\"$mount\\"" EXIT && "$@"'
"""Script that runs a command while a file system is frozen, so that its device is consistent."""
RELEASE_SECONDS = 5
"""The kernel releases a loop device shortly after the last unmount."""


@dataclass(frozen=True, slots=True)
class RootDisk:
    """The folder of one server: `disk.img`, its mount point `disk`, the root file system at `root`."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "disk.img"

    @property
    def mount(self) -> Path:
        return self.folder / "disk"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def var_lib(self) -> Path:
        return self.mount / "var-lib"

    @property
    def journal(self) -> Path:
        """/var/log/journal; without it podman mounts a tmpfs there (cgroup v2)."""
        return self.mount / "journal"

    @property
    def fill_file(self) -> Path:
        """The file that fills the disk as a fault, outside the host's root file system."""
        return self.mount / "ballast"

    @property
    def lower(self) -> Path:
        """A link to the host image of this disk."""
        return self.folder / "image"

    def exists(self) -> bool:
        return self.lower.is_symlink()

    def create(self, image: Path, size_gb: int) -> None:
        """Create and mount a new disk. The link to the image is written last: without it the disk is incomplete."""
        self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.image.open("wb") as file:
            file.truncate(size_gb * 10**9)
        options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
        run(["mkfs.ext4", "-q", "-F", "-m", "1", "-i", "32768", "-J", "size=64", "-E", options, str(self.image)])
        self._mount_disk()
        for name in ("upper", "work"):
            (self.mount / name).mkdir()
        run(["cp", "-a", f"{image}/var/lib", str(self.var_lib)])
        self._mount_root(image)

    def finish(self, image: Path) -> None:
        self.lower.unlink(missing_ok=True)
        self.lower.symlink_to(image)

    def restore(self, snapshot: DiskSnapshot, size_gb: int) -> Path:
        """Create and mount a new disk with the content of a snapshot; returns its host image, see `finish`."""
        image = snapshot.host_image()
        self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        run([*COPY, str(snapshot.image), str(self.image)])
        self._extend(size_gb)
        self._mount_disk()
        self.fill_file.unlink(missing_ok=True)
        # The lab's data source trusts the cached instance; without the link to it cloud-init recognizes a new server.
        cloud = self.var_lib / "cloud"
        if not cloud.is_symlink():
            (cloud / "instance").unlink(missing_ok=True)
        self._mount_root(image)
        return image

    def open(self) -> None:
        """Mount the disk unless it is mounted (after a restart of the machine)."""
        if not self.exists() or not self.image.exists():
            raise MachineError(f"{self.folder}: the root disk is missing. Rebuild the server.")
        image = self.lower.resolve()
        if not image.is_dir():
            raise MachineError(f"host image {image.name} is missing in {image.parent}. Rebuild the server.")
        if not self.mount.is_mount():
            self._mount_disk()
        self.journal.mkdir(exist_ok=True)
        if not self.root.is_mount():
            self._mount_root(image)

    def close(self) -> None:
        for mount in (self.root, self.mount):
            unmount(mount)

    def remove(self) -> None:
        self.lower.unlink(missing_ok=True)
        self.close()
        self.image.unlink(missing_ok=True)
        for mount in (self.root, self.mount):
            if mount.is_dir():
                mount.rmdir()

    def grow(self, size_gb: int) -> None:
        """Grow the disk; the host is off. A disk never shrinks."""
        if self.image.stat().st_size >= size_gb * 10**9:
            return
        for mount in (self.root, self.mount):
            if mount.is_mount():
                try:
                    run(["umount", str(mount)])
                except CommandError as error:
                    # Resizing needs an unmounted file system, and another process uses this one.
                    raise MachineError(
                        f"the disk cannot grow: a process of this machine uses {mount}. "
                        f"Stop the process (fuser -vm {mount}) and resize again."
                    ) from error
        self._require_released()
        self._extend(size_gb)

    def _extend(self, size_gb: int) -> None:
        """Extend the file system of the unmounted disk."""
        with self.image.open("r+b") as file:
            file.truncate(size_gb * 10**9)
        try:
            run(["e2fsck", "-f", "-p", str(self.image)])
        except CommandError as error:
            if error.returncode != E2FSCK_CORRECTED:
                raise
        run(["resize2fs", str(self.image)])

    def _require_released(self) -> None:
        """A lazy unmount, or another mount namespace, keeps a file system that this namespace no longer shows."""
        deadline = time.monotonic() + RELEASE_SECONDS
        while loop := loop_of(self.image):
            if time.monotonic() > deadline:
                raise MachineError(
                    f"the disk cannot grow: {loop} still has the mounted file system of {self.image}. "
                    "Stop the process of this machine that uses it and resize again."
                )
            time.sleep(0.05)

    def fill(self, free_mb: int | None) -> None:
        """Allocate all space but `free_mb`, as root sees it; None frees it. The image stays sparse on this machine."""
        self.fill_file.unlink(missing_ok=True)
        if free_mb is None:
            return
        with self.fill_file.open("wb") as file:
            allocated_bytes = 0
            # fallocate fails as a whole when one block is missing: continue with smaller pieces.
            for piece in (2**30, 2**24, 2**20):
                with contextlib.suppress(OSError):
                    while self.free_mb() - free_mb >= piece // 2**20:
                        os.posix_fallocate(file.fileno(), allocated_bytes, piece)
                        allocated_bytes += piece

    def free_mb(self) -> int:
        """Space that root can write: ext4 reserves some blocks even from root."""
        status, device = os.statvfs(self.mount), self.mount.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        reserved = int(Path("/sys/fs/ext4", name, "reserved_clusters").read_text())
        return max(0, status.f_bfree - reserved) * status.f_frsize // 2**20

    def _mount_disk(self) -> None:
        self.mount.mkdir(exist_ok=True)
        # No barriers: a host's death does not lose synced data, and nothing needs to survive the death of this machine.
        run(["mount", "-o", "loop,noatime,nobarrier,discard", str(self.image), str(self.mount)])
        # Direct I/O: else all is copied into this machine's page cache a second time. Not every file system has it.
        with contextlib.suppress(CommandError):
            run(["losetup", "--direct-io=on", loop_of(self.image)])

    def _mount_root(self, image: Path) -> None:
        self.root.mkdir(exist_ok=True)
        overlay(image, self.mount / "upper", self.mount / "work", self.root)


@dataclass(frozen=True, slots=True)
class DiskSnapshot:
    """A copy of a root disk, with a link to its host image."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "disk.img"

    @property
    def lower(self) -> Path:
        return self.folder / "image"

    def create(self, disk: RootDisk) -> float:
        """Copy the disk; returns the size of the copy in GB. The link is written last: without it, it is incomplete."""
        self.remove()
        self.folder.mkdir(parents=True)
        copy = [*COPY, str(disk.image), str(self.image)]
        # The shell thaws the file system even when this process is killed meanwhile.
        frozen = ["sh", "-c", FROZEN, "sh", str(disk.mount), *copy]
        run(frozen if disk.mount.is_mount() else copy)
        self.lower.symlink_to(disk.lower.resolve())
        return round(self.image.stat().st_blocks * 512 / 10**9, 2)

    def host_image(self) -> Path:
        if not self.lower.is_symlink() or not self.lower.resolve().is_dir():
            raise MachineError(f"{self.folder}: the data of the snapshot is missing. Create another snapshot.")
        return self.lower.resolve()

    def remove(self) -> None:
        self.lower.unlink(missing_ok=True)
        remove_folder(self.folder)


@dataclass(frozen=True, slots=True)
class RescueDisk:
    """The root of the rescue system, in memory."""

    folder: Path

    @property
    def mount(self) -> Path:
        return self.folder / "rescue"

    @property
    def root(self) -> Path:
        return self.folder / "rescue-root"

    def create(self, image: Path) -> None:
        self.remove()
        self.mount.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "rescue", str(self.mount)])
        for name in ("upper", "work"):
            (self.mount / name).mkdir()
        overlay(image, self.mount / "upper", self.mount / "work", self.root)

    def remove(self) -> None:
        for mount in (self.root, self.mount):
            unmount(mount)
            if mount.is_dir():
                mount.rmdir()


def overlay(lower: Path, upper: Path, work: Path, target: Path) -> None:
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "slipway", "-o", options, str(target)])


def unmount(target: Path) -> None:
    if not target.is_mount():
        return
    try:
        run(["umount", str(target)])
    except CommandError:
        # Still in use: detach now, the kernel unmounts after the last use.
        run(["umount", "--lazy", str(target)])


def write_identity(root: Path, name: str, machine_id: str, nameservers: list[str]) -> None:
    """Write host name, machine id and resolvers. Only for a new root: it does not guard against symbolic links."""
    etc = root / "etc"
    (etc / "machine-id").write_text(machine_id + "\n")
    (etc / "hostname").write_text(name + "\n")
    (etc / "hosts").write_text(
        f"127.0.1.1 {name} {name}\n127.0.0.1 localhost\n"
        "::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
    )
    (etc / "resolv.conf").write_text("".join(f"nameserver {address}\n" for address in nameservers))


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
