"""What this machine must offer before a lab can stand on it: looked at before anything is changed.

Runs with the standard library alone and on Python 3.9 or later (`python3 lab/preflight.py`), so that `lab/setup.sh`
can ask before it installs the first package. Every shortage is one sentence with the value seen and the remedy; all
are told at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.settings import Settings

SUPPORTED_DEBIAN = ("12", "13")
MEMORY_SITE_GB = 10.0
"""The hosts of the site with their services, Ceph's daemons among them, the daemon, Ansible's forks, and room for the
page cache."""
MEMORY_CLOUD_GB = 1.5
DISK_SITE_GB = 20.0
"""Host and container images and their build, root disks, volumes (sparse), the packages of set-up."""
DISK_CLOUD_GB = 8.0

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}


@dataclass(frozen=True)
class Machine:
    """What was seen of the machine. A plain value, so that the sentences can be tested without one."""

    user_id: int = 0
    distribution: str = "debian"
    release: str = "13"
    pretty_name: str = "Debian GNU/Linux 13 (trixie)"
    architecture: str = "x86_64"
    memory_gb: float = 16.0
    disks_gb: dict[str, float] = field(default_factory=dict)
    """Folder → free space of the file system it will lie on."""
    ports_taken: dict[str, int] = field(default_factory=dict)
    """What the port is for → the port, for those that another program holds."""
    missing_features: tuple[str, ...] = ()
    slot_holder: str = ""
    """Name of another lab that stands in the wanted slot."""
    addresses_taken: tuple[str, ...] = ()
    """Addresses of the lab's ranges that this machine uses already."""
    lab_stands: bool = False
    """This lab was built before: what it needs of memory and disk it holds already."""


def faults(machine: Machine, settings: Settings, *, site: bool = True) -> list[str]:
    """Every reason why the lab cannot stand here, one sentence each; empty when it can."""
    found: list[str] = []
    if machine.user_id != 0:
        found.append(f"You are user {machine.user_id}: hosts and networks need root; run it again with sudo.")
    if machine.distribution != "debian" or machine.release not in SUPPORTED_DEBIAN:
        found.append(
            f"This machine runs {machine.pretty_name or 'an unknown system'}: the lab is made for Debian "
            f"{' and '.join(SUPPORTED_DEBIAN)}; use such a machine, virtual or real."
        )
    if machine.architecture != "x86_64":
        found.append(
            f"This machine's processor is {machine.architecture}: host images and releases are amd64; "
            "use an x86_64 machine."
        )
    large = site and not machine.lab_stands
    memory = MEMORY_SITE_GB if large else MEMORY_CLOUD_GB
    if machine.memory_gb < memory:
        remedy = "; for the cloud without the platform use: lab up --only-cloud" if large else ""
        found.append(
            f"Only {machine.memory_gb:.1f} GB of memory are available and {memory:.1f} GB are needed: "
            f"end other programs or use a larger machine{remedy}."
        )
    disk = DISK_SITE_GB if large else DISK_CLOUD_GB
    for folder, free in machine.disks_gb.items():
        if free < disk:
            found.append(
                f"Only {free:.1f} GB of disk are free for {folder} and {disk:.0f} GB are needed: make room, or set "
                "SLIPWAY_STATE_ROOT and SLIPWAY_CACHE_ROOT to folders on a larger disk."
            )
    for purpose, port in machine.ports_taken.items():
        found.append(
            f"Port {port} ({purpose}) is taken by another program: end it, or choose another slot with "
            f"SLIPWAY_LAB_SLOT (now {settings.slot})."
        )
    if machine.slot_holder:
        found.append(
            f"Slot {settings.slot} belongs to the lab {machine.slot_holder!r}: remove that one "
            f"(SLIPWAY_LAB={machine.slot_holder} lab down) or choose another slot with SLIPWAY_LAB_SLOT."
        )
    for address in machine.addresses_taken:
        found.append(
            f"This machine uses {address} already, inside the range that the lab needs ({settings.public_range} and "
            f"{settings.uplink_network}): choose another slot with SLIPWAY_LAB_SLOT."
        )
    found.extend(machine.missing_features)
    return found


def look(settings: Settings, *, ours_runs: bool = False) -> Machine:
    """Look at this machine; changes nothing. `ours_runs`: this lab's daemon runs, so its ports are rightly taken."""
    release = _os_release()
    stands = _exists(settings.description)
    return Machine(
        user_id=os.geteuid(),
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        pretty_name=release.get("PRETTY_NAME", ""),
        architecture=platform.machine(),
        memory_gb=_available_memory_gb(),
        disks_gb=_free_disk_gb(settings.state_dir, settings.cache_dir, Path("/var/lib/containers")),
        ports_taken={} if ours_runs else _ports_taken(settings),
        missing_features=tuple(_missing_features()) if os.geteuid() == 0 else (),
        slot_holder=_slot_holder(settings),
        addresses_taken=() if ours_runs or stands else addresses_taken(settings),
        lab_stands=stands,
    )


def _exists(path: Path) -> bool:
    """False also for what only root may look into: the sentence about root is the one to tell."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {key: value.strip().strip('"') for key, _, value in (line.partition("=") for line in lines)}


def _available_memory_gb() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            return min(available, *_cgroup_limits(), sys.maxsize) / 1e9
    return 0.0


def _cgroup_limits() -> Iterable[int]:
    """Memory limits of the control group this process lives in (a container, a systemd slice)."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdecimal():
            yield int(text)


def _free_disk_gb(*folders: Path) -> dict[str, float]:
    """Free space by folder, one folder per file system (they share what is free)."""
    seen: dict[int, str] = {}
    free: dict[str, float] = {}
    for folder in folders:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        device = existing.stat().st_dev
        if device not in seen:
            seen[device] = str(folder)
            free[str(folder)] = shutil.disk_usage(existing).free / 1e9
    return free


def _ports_taken(settings: Settings) -> dict[str, int]:
    wanted = {
        "the cloud's API": ("127.0.0.1", settings.api_port),
        "the release mirror": ("", settings.mirror_port),
        "the image registry": ("", settings.registry_port),
    }
    taken = {}
    for purpose, (address, port) in wanted.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError:
                taken[purpose] = port
    return taken


def _slot_holder(settings: Settings) -> str:
    for path in settings.state_root.glob("*/lab.json"):
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if description.get("slot") == settings.slot and description.get("name") != settings.name:
            return str(description.get("name"))
    return ""


def addresses_taken(settings: Settings) -> tuple[str, ...]:
    """Local addresses inside the lab's ranges, read from the kernel's table of local routes."""
    from ipaddress import IPv4Address

    taken = []
    previous = ""
    table = Path("/proc/net/fib_trie")
    for line in table.read_text(encoding="ascii").splitlines() if table.exists() else []:
        text = line.strip()
        if text.startswith("|-- "):
            previous = text[4:]
        elif text.startswith("/32 host LOCAL") and previous:
            address = IPv4Address(previous)
            if address in settings.public_range or address in settings.uplink_network:
                taken.append(previous)
    return tuple(dict.fromkeys(taken))


def _missing_features() -> list[str]:
    """Kernel features, tried in a child process with namespaces of its own: nothing of it stays."""
    missing = []
    effective = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    for name, bit in CAPABILITIES.items():
        if not effective >> bit & 1:
            missing.append(
                f"This root lacks {name} (a container without privileges?): hosts cannot be made; "
                "run the lab on a machine of its own or in a privileged container."
            )
    if missing:
        return missing
    filesystems = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "overlay" not in filesystems and not _module_exists("overlay"):
        missing.append("The kernel has no overlay file system: root disks cannot be made; use Debian's own kernel.")
    if not Path("/dev/loop-control").exists() and not _module_exists("loop"):
        missing.append("The kernel has no loop devices: volumes cannot be made; use Debian's own kernel.")
    for what, attempt in (("network namespaces", _try_namespace), ("virtual Ethernet pairs", _try_veth)):
        if not _in_child(attempt):
            missing.append(f"The kernel has no {what}: hosts cannot be connected; use Debian's own kernel.")
            return missing
    if not _in_child(_try_nftables) and not _module_exists("nf_tables"):
        missing.append("The kernel has no nf_tables: firewalls cannot be made; use Debian's own kernel.")
    return missing


def _module_exists(name: str) -> bool:
    """Whether modprobe would find it: overlay and loop are modules on Debian, loaded at first use."""
    folder = Path("/lib/modules") / platform.release()
    return any(
        name.replace("_", "-") + ".ko" in line.replace("_", "-")
        for index in ("modules.dep", "modules.builtin")
        if (folder / index).exists()
        for line in (folder / index).read_text(encoding="utf-8").splitlines()
    )


def _in_child(attempt: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _try_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLMSG_ERROR = 2


def _netlink(family: int, kind: int, flags: int, body: bytes) -> None:
    """Send one request that asks to be acknowledged; an error in the acknowledgement is raised."""
    request = struct.pack("=LHHLL", 16 + len(body), kind, flags | 0x1 | 0x4, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as link:
        link.bind((0, 0))
        link.settimeout(5)
        link.send(request)
        answer = link.recv(65536)
        while struct.unpack_from("=LH", answer)[1] != NLMSG_ERROR:
            answer = link.recv(65536)
    error = -struct.unpack_from("=LHHLLi", answer)[5]
    if error:
        raise OSError(error, os.strerror(error))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _try_veth() -> None:
    _try_namespace()
    new_link, create_exclusive = 16, 0x400 | 0x200
    interface = bytes(16)
    kind = _attribute(1, b"veth\0")
    _netlink(NETLINK_ROUTE, new_link, create_exclusive, interface + _attribute(18, kind))


def _try_nftables() -> None:
    _try_namespace()
    nfnetlink_nftables, get_generation = 10, 16
    _netlink(NETLINK_NETFILTER, nfnetlink_nftables << 8 | get_generation, 0, bytes(4))


def main() -> int:
    """For `lab/setup.sh`: print the sentences and say by the exit code whether there are any."""
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    # A lab that stands already holds its own ports; `lab up` looks again and knows better.
    found = faults(look(settings, ours_runs=_exists(settings.description)), settings)
    for sentence in found:
        print(f"slipway: {sentence}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
