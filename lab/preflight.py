"""Preflight checks: what a lab requires of this machine, checked before anything is changed.

Requires only the standard library of Python 3.9 or later (`python3 lab/preflight.py`), so that `lab/setup.sh` can run
it before it installs packages. Every fault is one message with the value and the remedy; all are printed.
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
"""The hosts of the site with their services, including Ceph's daemons, the lab's daemon, Ansible's forks, and the page
cache."""
MEMORY_CLOUD_GB = 1.5
DISK_SITE_GB = 20.0
"""Host and container images and their build, root disks, volumes (sparse), the packages of set-up."""
DISK_CLOUD_GB = 8.0

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}


@dataclass(frozen=True)
class Machine:
    """The properties of a machine, as a plain value, so that `faults` can be tested without such a machine."""

    user_id: int = 0
    distribution: str = "debian"
    release: str = "13"
    pretty_name: str = "Debian GNU/Linux 13 (trixie)"
    architecture: str = "x86_64"
    memory_gb: float = 16.0
    disks_gb: dict[str, float] = field(default_factory=dict)
    """Folder → free space of its file system."""
    ports_taken: dict[str, int] = field(default_factory=dict)
    """Purpose of the port → port, for the ports that another program uses."""
    missing_features: tuple[str, ...] = ()
    slot_owner: str = ""
    """Name of another lab in the same slot."""
    addresses_taken: tuple[str, ...] = ()
    """Addresses of the lab's ranges that this machine already uses."""
    lab_exists: bool = False
    """Whether this lab was created before: it already has its memory and disk space."""


def faults(machine: Machine, settings: Settings, *, site: bool = True) -> list[str]:
    """Every reason why the lab cannot be created here, one message each."""
    messages: list[str] = []
    if machine.user_id != 0:
        messages.append(f"User {machine.user_id}: creating hosts and networks requires root. Repeat with sudo.")
    if machine.distribution != "debian" or machine.release not in SUPPORTED_DEBIAN:
        messages.append(
            f"Operating system {machine.pretty_name or 'unknown'}: not supported. Use Debian "
            f"{' or '.join(SUPPORTED_DEBIAN)}, virtual or real."
        )
    if machine.architecture != "x86_64":
        messages.append(
            f"Processor {machine.architecture}: not supported, host images and releases are amd64. "
            "Use an x86_64 machine."
        )
    large = site and not machine.lab_exists
    memory = MEMORY_SITE_GB if large else MEMORY_CLOUD_GB
    if machine.memory_gb < memory:
        remedy = ", or start only the cloud with: lab up --only-cloud" if large else "."
        messages.append(
            f"Memory: {machine.memory_gb:.1f} GB are available, {memory:.1f} GB are required. "
            f"Stop other programs or use a larger machine{remedy}"
        )
    disk = DISK_SITE_GB if large else DISK_CLOUD_GB
    for folder, free in machine.disks_gb.items():
        if free < disk:
            messages.append(
                f"{folder}: {free:.1f} GB of disk are free, {disk:.0f} GB are required. Free disk space, or set "
                "SLIPWAY_STATE_ROOT and SLIPWAY_CACHE_ROOT to folders on a larger disk."
            )
    for purpose, port in machine.ports_taken.items():
        messages.append(
            f"Port {port} ({purpose}): in use by another program. Stop that program, or choose another slot with "
            f"SLIPWAY_LAB_SLOT (now {settings.slot})."
        )
    if machine.slot_owner:
        messages.append(
            f"Slot {settings.slot}: in use by the lab {machine.slot_owner!r}. Remove that lab "
            f"(SLIPWAY_LAB={machine.slot_owner} lab down), or choose another slot with SLIPWAY_LAB_SLOT."
        )
    for address in machine.addresses_taken:
        messages.append(
            f"Address {address}: already used by this machine, inside the lab's ranges {settings.public_range} and "
            f"{settings.uplink_network}. Choose another slot with SLIPWAY_LAB_SLOT."
        )
    messages.extend(machine.missing_features)
    return messages


def inspect_machine(settings: Settings, *, daemon_running: bool = False) -> Machine:
    """Read the properties of this machine. `daemon_running`: the ports in use are those of this lab's daemon."""
    release = _os_release()
    exists = _exists(settings.description)
    return Machine(
        user_id=os.geteuid(),
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        pretty_name=release.get("PRETTY_NAME", ""),
        architecture=platform.machine(),
        memory_gb=_available_memory_gb(),
        disks_gb=_free_disk_gb(settings.state_dir, settings.cache_dir, Path("/var/lib/containers")),
        ports_taken={} if daemon_running else _ports_taken(settings),
        missing_features=tuple(_missing_features()) if os.geteuid() == 0 else (),
        slot_owner=_slot_owner(settings),
        addresses_taken=() if daemon_running or exists else addresses_taken(settings),
        lab_exists=exists,
    )


def _exists(path: Path) -> bool:
    """False also without permission: then the message about root is the right one."""
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
    """Memory limits of this process's control group (a container, a systemd slice)."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdecimal():
            yield int(text)


def _free_disk_gb(*folders: Path) -> dict[str, float]:
    """Free space by folder, one folder per file system."""
    devices: set[int] = set()
    free: dict[str, float] = {}
    for folder in folders:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        device = existing.stat().st_dev
        if device not in devices:
            devices.add(device)
            free[str(folder)] = shutil.disk_usage(existing).free / 1e9
    return free


def _ports_taken(settings: Settings) -> dict[str, int]:
    wanted = {
        "the cloud's API": ("127.0.0.1", settings.api_port),
        "the release mirror": ("", settings.mirror_port),
        "the image registry": ("", settings.registry_port),
        "GitLab": ("", settings.gitlab_port),
        "the cloud's API for hosts": ("", settings.hosts_api_port),
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


def _slot_owner(settings: Settings) -> str:
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
    """Missing capabilities and kernel features, probed in a child process with its own namespaces."""
    missing = []
    effective = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    for name, bit in CAPABILITIES.items():
        if not effective >> bit & 1:
            missing.append(
                f"Capability {name}: missing (an unprivileged container?), required to create hosts. "
                "Run the lab on a machine of its own or in a privileged container."
            )
    if missing:
        return missing
    filesystems = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "overlay" not in filesystems and not _module_exists("overlay"):
        missing.append("Kernel: no overlay file system, required for root disks. Use Debian's kernel.")
    if not Path("/dev/loop-control").exists() and not _module_exists("loop"):
        missing.append("Kernel: no loop devices, required for volumes. Use Debian's kernel.")
    for feature, probe in (("network namespaces", _probe_namespace), ("virtual Ethernet pairs", _probe_veth)):
        if not _succeeds_in_child(probe):
            missing.append(f"Kernel: no {feature}, required to connect hosts. Use Debian's kernel.")
            return missing
    if not _succeeds_in_child(_probe_nftables) and not _module_exists("nf_tables"):
        missing.append("Kernel: no nf_tables, required for firewalls. Use Debian's kernel.")
    return missing


def _module_exists(name: str) -> bool:
    """Whether modprobe can load the module: on Debian overlay and loop are loaded at first use."""
    folder = Path("/lib/modules") / platform.release()
    return any(
        name.replace("_", "-") + ".ko" in line.replace("_", "-")
        for index in ("modules.dep", "modules.builtin")
        if (folder / index).exists()
        for line in (folder / index).read_text(encoding="utf-8").splitlines()
    )


def _succeeds_in_child(probe: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            probe()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _probe_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLMSG_ERROR = 2


def _netlink(family: int, kind: int, flags: int, body: bytes) -> None:
    """Send one request with acknowledgement; an error in the acknowledgement is raised."""
    request = struct.pack("=LHHLL", 16 + len(body), kind, flags | 0x1 | 0x4, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as link:
        link.bind((0, 0))
        link.settimeout(5)
        link.send(request)
        reply = link.recv(65536)
        while struct.unpack_from("=LH", reply)[1] != NLMSG_ERROR:
            reply = link.recv(65536)
    error = -struct.unpack_from("=LHHLLi", reply)[5]
    if error:
        raise OSError(error, os.strerror(error))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _probe_veth() -> None:
    _probe_namespace()
    new_link, create_exclusive = 16, 0x400 | 0x200
    interface = bytes(16)
    kind = _attribute(1, b"veth\0")
    _netlink(NETLINK_ROUTE, new_link, create_exclusive, interface + _attribute(18, kind))


def _probe_nftables() -> None:
    _probe_namespace()
    nfnetlink_nftables, get_generation = 10, 16
    _netlink(NETLINK_NETFILTER, nfnetlink_nftables << 8 | get_generation, 0, bytes(4))


def main() -> int:
    """For `lab/setup.sh`: print the faults; the exit code is 1 if there are any."""
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    # The ports of an existing lab are in use by its own daemon; `lab up` checks again.
    found = faults(inspect_machine(settings, daemon_running=_exists(settings.description)), settings)
    for fault in found:
        print(f"slipway: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
