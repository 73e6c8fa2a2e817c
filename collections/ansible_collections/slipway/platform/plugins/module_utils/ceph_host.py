"""What a host knows of Ceph without asking the cluster: its programs, its daemons, what its monitor says of itself."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import pwd
import re
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_config import addresses_of

DATA = Path("/var/lib/ceph")
SOCKETS = Path("/var/run/ceph")
LOCKS = Path("/run/cephadm")
UNITS = Path("/etc/systemd/system")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DAEMON = re.compile(r"(mon|mgr|osd|mds|rgw|crash|ceph-exporter|nfs|rbd-mirror|prometheus|grafana)\..+")
QUORATE = ("leader", "peon")
"""States of a monitor that is part of a majority."""

Run = Callable[..., tuple[int, str, str]]


def read_host(run: Run, *, fsid: str, name: str, packages: Sequence[str], image: str, program: str, checksum: str,
              account: str) -> dict[str, Any]:  # fmt: skip
    """Everything at once; nothing here waits for anybody."""
    return {
        "name": name,
        "kernel": platform.release(),
        "memory_mb": memory_mb(Path("/proc/meminfo").read_text()),
        "missing_packages": missing_packages(run, packages),
        "program": digest(Path(program)) == checksum.rpartition(":")[2],
        "image": has_image(run, image),
        "account": has_account(account),
        "clusters": clusters(DATA),
        "monitor": monitor(fsid, name),
    }


def memory_mb(meminfo: str) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.M)
    return int(match[1]) // 1024 if match else 0


def missing_packages(run: Run, packages: Sequence[str]) -> list[str]:
    _, output, _ = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *packages])
    installed = {line.split()[0] for line in output.splitlines() if line.endswith(" installed")}
    return sorted(set(packages) - installed)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def has_image(run: Run, image: str) -> bool:
    return which("podman") is not None and run(["podman", "image", "exists", image])[0] == 0


def has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def clusters(data: Path) -> dict[str, list[str]]:
    """Every cluster with a folder on this host, and the daemons that it has here."""
    if not data.is_dir():
        return {}
    return {
        folder.name: sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and DAEMON.fullmatch(entry.name))
        for folder in sorted(data.iterdir())
        if UUID.fullmatch(folder.name) and folder.is_dir()
    }


def monitor(fsid: str, name: str) -> dict[str, Any]:
    """The monitor of this host: whether it is there, was ever finished, and what it says of itself."""
    folder = DATA / fsid / f"mon.{name}"
    said = ask_socket(SOCKETS / fsid / f"ceph-mon.{name}.asok", "mon_status") if folder.is_dir() else {}
    return {
        "there": folder.is_dir(),
        "deployed": (UNITS / f"ceph-{fsid}@.service").is_file() and (folder / "store.db/CURRENT").is_file(),
        "state": str(said.get("state", "")),
        "quorum": monitors_of(said, said.get("quorum", [])),
        "monitors": monitors_of(said),
        "configured": configured(folder / "config"),
    }


def configured(path: Path) -> list[str]:
    """Addresses of the monitors in the configuration of this monitor's container."""
    return addresses_of(path.read_text(encoding="utf-8")) if path.is_file() else []


def monitors_of(said: dict[str, Any], ranks: Sequence[int] | None = None) -> list[str]:
    """Names of a status' monitors, all or those of some ranks."""
    found = said.get("monmap", {}).get("mons", [])
    return [str(one["name"]) for one in found if ranks is None or one["rank"] in ranks]


def ask_socket(path: Path, command: str, seconds: float = 3) -> dict[str, Any]:
    """What a daemon answers at its own door, which is open even without a majority; {} when it does not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(seconds)
            door.connect(str(path))
            door.sendall(json.dumps({"prefix": command, "format": "json"}).encode() + b"\0")
            (length,) = struct.unpack(">I", _exactly(door, 4))
            answer = json.loads(_exactly(door, length))
    except (OSError, ValueError, struct.error):
        return {}
    return answer if isinstance(answer, dict) else {}


def _exactly(door: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length and (part := door.recv(length - len(found))):
        found += part
    return found


def wait_until_idle(fsid: str, seconds: float) -> None:
    """Wait while cephadm is at work on this host: what a killed run began goes on without it."""
    path = LOCKS / f"{fsid}.lock"
    deadline = time.monotonic() + seconds
    while path.is_file():
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return
        time.sleep(0.5)


def wait_for_quorum(fsid: str, name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while monitor(fsid, name)["state"] not in QUORATE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
