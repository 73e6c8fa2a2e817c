"""State of one host without the cluster: programs, daemons, and the status of its own monitor."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import pwd
import re
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_config import addresses_of
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

DATA = Path("/var/lib/ceph")
SOCKETS = Path("/var/run/ceph")
LOCKS = Path("/run/cephadm")
UNITS = Path("/etc/systemd/system")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DAEMON = re.compile(r"(mon|mgr|osd|mds|rgw|crash|ceph-exporter|nfs|rbd-mirror|prometheus|grafana)\..+")
QUORATE = ("leader", "peon")
"""States of a monitor that is in the quorum."""

Run = Callable[..., tuple[int, str, str]]


def read_host(run: Run, *, fsid: str, name: str, packages: Sequence[str], image: str, program: str, checksum: str,
              account: str) -> dict[str, Any]:  # fmt: skip
    """The whole state; none of these reads blocks."""
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
    """Clusters with a folder on this host, and their daemons here."""
    if not data.is_dir():
        return {}
    return {
        folder.name: sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and DAEMON.fullmatch(entry.name))
        for folder in sorted(data.iterdir())
        if UUID.fullmatch(folder.name) and folder.is_dir()
    }


def monitor(fsid: str, name: str) -> dict[str, Any]:
    """The monitor of this host: whether it exists, was deployed completely, and its own status."""
    folder = DATA / fsid / f"mon.{name}"
    status = query_admin_socket(SOCKETS / fsid / f"ceph-mon.{name}.asok", "mon_status") if folder.is_dir() else {}
    return {
        "exists": folder.is_dir(),
        "deployed": (UNITS / f"ceph-{fsid}@.service").is_file() and (folder / "store.db/CURRENT").is_file(),
        "state": str(status.get("state", "")),
        "quorum": monitors_of(status, status.get("quorum", [])),
        "monitors": monitors_of(status),
        "configured": configured(folder / "config"),
    }


def configured(path: Path) -> list[str]:
    """Addresses of the monitors in the configuration of this monitor's container."""
    return addresses_of(path.read_text(encoding="utf-8")) if path.is_file() else []


def monitors_of(status: dict[str, Any], ranks: Sequence[int] | None = None) -> list[str]:
    """Names of the monitors in a status, all or those with the given ranks."""
    monitors = status.get("monmap", {}).get("mons", [])
    return [str(one["name"]) for one in monitors if ranks is None or one["rank"] in ranks]


def query_admin_socket(path: Path, command: str, timeout_seconds: float = 3) -> dict[str, Any]:
    """Answer of a daemon's admin socket, which needs no quorum; {} without an answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_seconds)
            connection.connect(str(path))
            connection.sendall(json.dumps({"prefix": command, "format": "json"}).encode() + b"\0")
            (length,) = struct.unpack(">I", _receive_exactly(connection, 4))
            answer = json.loads(_receive_exactly(connection, length))
    except (OSError, ValueError, struct.error):
        return {}
    return answer if isinstance(answer, dict) else {}


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := connection.recv(length - len(data))):
        data += part
    return data


def wait_until_idle(fsid: str, seconds: float) -> None:
    """Wait while cephadm holds its lock on this host: what a killed run started continues in the background."""
    path = LOCKS / f"{fsid}.lock"
    with suppress(NotMet):
        wait_until(
            str(path),
            lambda: locked(path),
            lambda held: ["locked"] if held else [],
            timeout_seconds=seconds,
            interval_seconds=0.5,
        )


def locked(path: Path) -> bool:
    """Whether another process holds the lock."""
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for_quorum(fsid: str, name: str, seconds: float) -> bool:
    try:
        wait_until(
            f"mon.{name}",
            lambda: str(monitor(fsid, name)["state"]),
            lambda state: [] if state in QUORATE else [f"its state is {state or 'unknown'}"],
            timeout_seconds=seconds,
            interval_seconds=0.5,
        )
    except NotMet:
        return False
    return True
