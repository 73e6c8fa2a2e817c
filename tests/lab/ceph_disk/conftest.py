"""Disks in every state that ceph_disk distinguishes: loop devices, created once for all tests.

The module runs in a mount namespace where they have links in /dev/disk/by-id and some are mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.machines.volumes import _loop_lock

LINKS = Path("/dev/disk")
REPOSITORY = Path(__file__).resolve().parents[3]
LABELS = REPOSITORY / "tests/unit/ceph_disk"
"""Written by `ceph-osd --mkfs` of Ceph 20.2.4: osd.0 of our cluster, and osd.7 of another one."""

OURS = "0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11"
OSD = "6a1d6b7c-0f0e-4d7b-8b59-3c5f0d2e9b02"
SIZE = 2**30 + 8 * 2**20  # a volume of 1 GB that has room for the second copy of BlueStore's label


def run(*command: str, data: str | None = None) -> str:
    # LVM keeps no list of its own of these devices, and holds nothing of pytest's open.
    environment = {**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}
    done = subprocess.run(
        command, input=data, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


MODULE = """\
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.platform.plugins.modules import ceph_disk
with patch_module_args(json.load(sys.stdin)):
    ceph_disk.main()
"""


@contextmanager
def namespace(script: str) -> Iterator[int]:
    """A process in a mount namespace of its own, in which the script has run."""
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{script}\necho ready\nexec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "ready\n"
        yield keeper.pid
    finally:
        keeper.communicate()


@dataclass
class Disk:
    """One loop device; `before` is its digest after the setup."""

    name: str
    number: int
    image: Path
    node: str
    before: str = ""

    @property
    def link(self) -> str:
        return f"/dev/disk/by-id/scsi-0HC_Volume_{self.number}"

    def write(self, *parts: tuple[int, bytes]) -> None:
        with Path(self.node).open("r+b", buffering=0) as device:
            for offset, data in parts:
                os.pwrite(device.fileno(), data.ljust(-(-len(data) // 4096) * 4096, b"\0"), offset)
            os.fsync(device.fileno())

    def digest(self) -> str:
        """Digest of every non-zero block of the device with its offset; holes of the file are not read."""
        run("blockdev", "--flushbufs", self.node)
        with self.image.open("rb") as file:
            os.fsync(file.fileno())
            digest, offset = hashlib.sha256(str(os.fstat(file.fileno()).st_size).encode()), 0
            while True:
                try:
                    offset = os.lseek(file.fileno(), offset, os.SEEK_DATA)
                except OSError:
                    return digest.hexdigest()
                end = os.lseek(file.fileno(), offset, os.SEEK_HOLE)
                for block in range(offset, end, 4096):
                    data = os.pread(file.fileno(), 4096, block)
                    if data.strip(b"\0"):
                        digest.update(str(block).encode() + data)
                offset = end


@dataclass
class Bench:
    """The disks, and the module as Ansible runs it."""

    folder: Path
    stack: ExitStack
    disks: dict[str, Disk] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    keeper: int = 0

    def add(self, name: str, size: int = SIZE, *options: str) -> Disk:
        image = self.folder / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(size)
        with _loop_lock():
            node = run("losetup", "--find", "--show", *options, str(image)).strip()
        self.stack.callback(run, "losetup", "--detach", node)
        disk = self.disks[name] = Disk(name, 9000 + len(self.disks), image, node)
        self.links[disk.link] = node
        return disk

    def enter(self) -> None:
        """Create the mount namespace with the links of the disks and some mounts."""
        lines = ["set -e", f"mount -t tmpfs none {LINKS}", f"mkdir {LINKS}/by-id"]
        lines += [f"ln -s {node} {link}" for link, node in self.links.items()]
        mounts = {str(self.folder / "mnt"): "mounted", "/boot": "system"}
        # Read-only, so that the mount writes nothing.
        lines += [f"mkdir -p {target}; mount -o ro {self.disks[name].node} {target}" for target, name in mounts.items()]
        self.keeper = self.stack.enter_context(namespace("\n".join(lines)))

    def run_module(self, *paths: str, check: bool = False, **given: Any) -> Any:
        """Result of the module for these devices."""
        arguments = {
            "fsid": OURS,
            "devices": [{"path": path, "size_gb": 1} for path in paths],
            "_ansible_check_mode": check,
            **given,
        }
        inside = ["nsenter", f"--target={self.keeper}", "--mount", f"--wd={REPOSITORY}"]
        done = subprocess.run(
            [*inside, sys.executable, "-c", MODULE],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": "collections"},
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def digests(self) -> dict[str, str]:
        return {name: disk.digest() for name, disk in self.disks.items()}


def logical_volume(disk: Disk, folder: Path, cluster: str) -> None:
    """Metadata as of `ceph-volume lvm`: an LVM label and a logical volume with tags, written without device-mapper."""
    run("pvcreate", "--devices", disk.node, "--quiet", disk.node)
    group = f"ceph-{disk.number}"
    run("vgcreate", "--devices", disk.node, "--quiet", group, disk.node)
    backup = folder / f"{group}.vg"
    run("vgcfgbackup", "--devices", disk.node, "--quiet", "--file", str(backup), group)
    tags = [f"ceph.cluster_fsid={cluster}", "ceph.osd_id=4", f"ceph.osd_fsid={OSD[:-2]}44", "ceph.type=block"]
    volume = f"""
    logical_volumes {{
        osd-block {{
            id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
            status = ["READ", "WRITE", "VISIBLE"]
            flags = []
            tags = {json.dumps(tags)}
            segment_count = 1
            segment1 {{
                start_extent = 0
                extent_count = 10
                type = "striped"
                stripe_count = 1
                stripes = ["pv0", 0]
            }}
        }}
    }}
}}
"""
    text = backup.read_text()
    end = text.index("\n}\n", text.index("physical_volumes {"))
    backup.write_text(text[:end] + volume + text[end + 3 :])
    run("vgcfgrestore", "--devices", disk.node, "--quiet", "--force", "--file", str(backup), group)


def machine_disks() -> list[str]:
    """Nodes of the devices on which this machine has something mounted, its root among them if it is on one."""
    numbers = [line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    names = {Path(f"/sys/dev/block/{number}").resolve().name for number in numbers if not number.startswith("0:")}
    return [f"/dev/{name}" for name in sorted(names) if Path(f"/dev/{name}").exists()]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("disks")
    ours, other = (LABELS / "ours.label").read_bytes(), (LABELS / "other.label").read_bytes()
    with ExitStack() as stack:
        bench = Bench(folder, stack)
        if not LINKS.is_dir():  # a machine without udev
            LINKS.mkdir()
            stack.callback(LINKS.rmdir)
        for name in ("empty", "mounted", "elsewhere", "system", "locked"):
            bench.add(name)
        bench.add("small", 2**29)
        bench.add("big", 2 * 2**30)
        bench.add("read_only", SIZE, "--read-only")
        run("mkfs.ext4", "-q", "-F", bench.add("ext4").node)
        run("mkfs.xfs", "-q", "-f", bench.add("xfs").node)
        run("mkswap", bench.add("swap").node)
        run("mkswap", bench.add("swapped_to").node)
        run("pvcreate", "--quiet", "--devices", bench.add("lvm").node, bench.disks["lvm"].node)
        run("sfdisk", "--quiet", bench.add("gpt").node, data="label: gpt\n")
        run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", bench.add("mbr").node, data="label: dos\n,64M\n")
        run("addpart", bench.add("partition", SIZE, "--partscan").node, "1", "2048", "204800")
        stack.callback(run, "delpart", bench.disks["partition"].node, "1")
        bench.links["/dev/disk/by-id/scsi-0HC_Volume_9099-part1"] = bench.disks["partition"].node + "p1"
        bench.add("ours").write((0, ours), (2**30, ours))
        bench.add("other").write((0, other), (2**30, other))
        bench.add("copy").write((2**30, other))
        bench.add("broken").write((0, ours.replace(b"whoami", b"whoamj")))
        bench.add("unknown").write((3 * 2**20, b"something"))
        logical_volume(bench.add("our_lvm"), folder, OURS)
        logical_volume(bench.add("other_lvm"), folder, OURS.replace("0", "1"))
        for name in ("mounted", "elsewhere", "system"):
            run("mkfs.ext4", "-q", "-F", bench.disks[name].node)
        bench.links["/dev/disk/by-id/wwn-0x9000"] = bench.disks["empty"].node
        bench.links["/dev/disk/by-id/scsi-0HC_Volume_9100"] = str(folder)
        bench.links |= {f"{LINKS}/by-id/own{number}": node for number, node in enumerate(machine_disks())}
        bench.enter()
        for name, digest in bench.digests().items():
            bench.disks[name].before = digest
        yield bench
