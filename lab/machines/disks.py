"""Root disks: a sparse ext4 image a server, whose upper layer over the host image is the server's root file system.

A file of its own gives each host the disk size of its server type (it can be filled up), outlives its container (so a
container is only ever one boot) and is removed as one file. /var/lib lies on the ext4 itself, not on the overlay:
containers inside a host need a file system that an overlay can stand on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.machines.base import MachineError
from lab.machines.commands import CommandError, run

E2FSCK_CORRECTED = 1


@dataclass(frozen=True, slots=True)
class RootDisk:
    """The folder of one server: `disk.img`, its mount `disk`, the whole root file system at `root`."""

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
        """/var/log/journal, where podman would put one in memory (cgroup v2)."""
        return self.mount / "journal"

    @property
    def ballast(self) -> Path:
        """What fills the disk on purpose: beside the host's own files, where it cannot see or remove it."""
        return self.mount / "ballast"

    @property
    def lower(self) -> Path:
        """A link to the host image this disk was made on."""
        return self.folder / "image"

    def exists(self) -> bool:
        return self.lower.is_symlink()

    def create(self, image: Path, size_gb: int) -> None:
        """Make and mount a fresh disk. The link to the image is written last: without it the disk is not finished."""
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

    def open(self) -> None:
        """Mount what is not mounted (after the machine was restarted)."""
        if not self.exists() or not self.image.exists():
            raise MachineError(f"the root disk in {self.folder} is not there; rebuild the server")
        image = self.lower.resolve()
        if not image.is_dir():
            raise MachineError(f"host image {image.name} was removed from {image.parent}; rebuild the server")
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
        """Make a bigger disk of it; the host is off. A disk never shrinks."""
        if self.image.stat().st_size >= size_gb * 10**9:
            return
        for mount in (self.root, self.mount):
            if mount.is_mount():
                try:
                    run(["umount", str(mount)])
                except CommandError as error:
                    # A file system that is looked into would be changed under whoever looks.
                    raise MachineError(
                        f"the disk cannot grow: a program of this machine uses {mount}. "
                        f"End it (fuser -vm {mount}) and try again"
                    ) from error
        with self.image.open("r+b") as file:
            file.truncate(size_gb * 10**9)
        try:
            run(["e2fsck", "-f", "-p", str(self.image)])
        except CommandError as error:
            if error.returncode != E2FSCK_CORRECTED:
                raise
        run(["resize2fs", str(self.image)])

    def fill(self, free_mb: int | None) -> None:
        """Take all room but so much, as root counts it; None gives it back. Costs the machine's own disk nothing."""
        self.ballast.unlink(missing_ok=True)
        if free_mb is None:
            return
        with self.ballast.open("wb") as file:
            taken = 0
            # A single large piece is refused when only its last block is missing: ever smaller ones.
            for piece in (2**30, 2**24, 2**20):
                with contextlib.suppress(OSError):
                    while self.free_mb() - free_mb >= piece // 2**20:
                        os.posix_fallocate(file.fileno(), taken, piece)
                        taken += piece

    def free_mb(self) -> int:
        """What root can still write: the file system keeps a little from everybody, for itself."""
        status, device = os.statvfs(self.mount), self.mount.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        kept = int(Path("/sys/fs/ext4", name, "reserved_clusters").read_text())
        return max(0, status.f_bfree - kept) * status.f_frsize // 2**20

    def _mount_disk(self) -> None:
        self.mount.mkdir(exist_ok=True)
        # No barriers: nothing here outlives this machine, and what a host synced survives the host's own death anyway.
        run(["mount", "-o", "loop,noatime,nobarrier,discard", str(self.image), str(self.mount)])

    def _mount_root(self, image: Path) -> None:
        self.root.mkdir(exist_ok=True)
        overlay(image, self.mount / "upper", self.mount / "work", self.root)


@dataclass(frozen=True, slots=True)
class RescueDisk:
    """The rescue system's root: in memory, gone with the boot."""

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
        # Something still looks into it: take the name away, the rest goes with the last user.
        run(["umount", "--lazy", str(target)])


def write_identity(root: Path, name: str, machine_id: str, nameservers: list[str]) -> None:
    """What tells one host from another. Only for a root nobody has run yet: it follows no links of a host."""
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
