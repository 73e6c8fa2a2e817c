"""A lab in a temporary folder, and a test double of the daemon that records its requests."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab import daemon
from lab.preflight import addresses_taken
from lab.settings import SLOTS, Settings

TOKEN = "t" * 64
PORTS = ("api_port", "mirror_port", "registry_port", "gitlab_port", "hosts_api_port")

SERVERS: list[dict[str, Any]] = [
    {
        "id": 1,
        "name": "lab-rke2-server-1",
        "status": "running",
        "type": "cx23",
        "image": "debian-13",
        "location": "fsn1",
        "public": {"ipv4": "198.18.0.11", "ipv6": "2001:db8:0:1::/64"},
        "private": {"lab": "10.90.1.21"},
        "volumes": ["lab-data-1"],
        "labels": {"slipway_environment": "lab"},
        "busy": False,
    },
    {
        "id": 2,
        "name": "lab-lb-1",
        "status": "off",
        "type": "cx23",
        "image": "debian-13",
        "location": "fsn1",
        "public": {"ipv4": "198.18.0.10"},
        "private": {},
        "volumes": [],
        "labels": {},
        "busy": False,
    },
]


@pytest.fixture
def slot() -> Iterator[int]:
    """A slot with free ports, locked against parallel tests."""
    for number in range(SLOTS - 1, 1, -1):
        candidate = Settings(slot=number)
        path = Path(tempfile.gettempdir()) / f"slipway-tests-slot-{number}"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            # A lab without a daemon uses its addresses but not its ports
            ports = [getattr(candidate, name) for name in PORTS]
            if all(is_free(port) for port in ports) and not addresses_taken(candidate):
                yield number
                return
    pytest.skip("every slot of this machine is in use by a lab")


def set_environment(monkeypatch: pytest.MonkeyPatch, folder: Path, slot: int) -> Settings:
    for name, value in {
        "SLIPWAY_LAB": "unit",
        "SLIPWAY_LAB_SLOT": str(slot),
        "SLIPWAY_STATE_ROOT": str(folder / "state"),
        "SLIPWAY_CACHE_ROOT": str(folder / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lab for one process: its own folders, and free ports whatever labs this machine has."""
    for name in PORTS:
        port = free_port()
        monkeypatch.setattr(Settings, name, property(lambda self, port=port: port))
    return set_environment(monkeypatch, tmp_path, slot=6)


@pytest.fixture
def slot_settings(tmp_path: Path, slot: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lab in a free slot, for tests that start other processes."""
    return set_environment(monkeypatch, tmp_path, slot)


def describe(settings: Settings, **changes: Any) -> dict[str, Any]:
    description = {
        "name": settings.name,
        "slot": settings.slot,
        "pid": os.getpid(),
        "code": daemon.code_fingerprint(),
        "api_endpoint": f"http://127.0.0.1:{settings.api_port}/v1",
        "token": TOKEN,
        "rke2": {
            "source": "simulation",
            "release_url": "https://198.19.255.1:8401/rke2",
            "note": "RKE2 is a simulation.",
        },
        "images": {"kind": settings.images, "note": "Host images carry packages."},
        "ceph": {"registry": "198.19.255.1:8402", "version": "20.2.4", "note": "Ceph is composed here."},
    } | changes
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    settings.description.write_text(json.dumps(description))
    return description


class Requests(list[tuple[str, str, Any]]):
    """(method, path, body) of every request, in order."""


@pytest.fixture
def requests(settings: Settings) -> Iterator[Requests]:
    """The requests to a running test double of the daemon, which also holds the lock on the pid file."""
    recorded = Requests()
    faults: list[dict[str, Any]] = [{"id": 3, "kind": "out_of_stock", "location": "fsn1", "left": 2}]

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.removeprefix("/_lab/")
            recorded.append((self.command, path, body))
            status, reply = 200, {}
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, reply = 401, {"error": {"message": "the token is invalid"}}
            elif path == "status":
                reply = {
                    "servers": SERVERS,
                    "networks": [],
                    "faults": faults,
                    "memory_mb": 60.4,
                    "problems": [],
                    "counts": {"volume": 1},
                }
            elif path == "faults" and self.command == "GET":
                reply = {"faults": faults}
            elif path.endswith("/console"):
                reply = {"console": "[    0.0] hello\n"}
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = respond

        def log_message(self, format: str, *args: Any) -> None:
            return

    describe(settings)
    server = ThreadingHTTPServer(("127.0.0.1", settings.api_port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with daemon.pid_file(settings).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield recorded
    server.shutdown()
    server.server_close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
