"""The lab's daemon: it serves the local cloud and the release mirror, runs the image registry and watches the hosts.

`python -m lab.daemon` runs it; `start`, `find` and `stop` are for the command line. That a daemon runs is proved by the
lock it holds on its pid file, which the kernel drops with the process: a stale file or a reused pid fools nobody.
Stopping the daemon leaves the hosts running; the next one reconciles what runs with what its database says.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import logging.handlers
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import secrets
from lab.machines.base import ExitReason, MachineError
from lab.mirror import MirrorError
from lab.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from lab.machines.base import Machines

LOG_BYTES = 5_000_000
LOG_FILES = 3
START_SECONDS = 120.0
"""Reconciling after a reboot of the machine starts every host again before the API answers."""
STOP_SECONDS = 20.0
IP_FREEBIND = 15
"""From linux/in.h; the socket module does not name it."""

log = logging.getLogger("lab.daemon")


class DaemonError(Exception):
    """The daemon could not be started or stopped. One sentence for a person, perhaps with the end of its log."""


# For the command line


def pid_file(settings: Settings) -> Path:
    return settings.state_dir / "daemon.pid"


def log_file(settings: Settings) -> Path:
    return settings.state_dir / "daemon.log"


def crash_file(settings: Settings) -> Path:
    """What the daemon prints when even its log cannot take it: a traceback at start, a crash of the interpreter."""
    return settings.state_dir / "daemon.err"


def find(settings: Settings) -> int | None:
    """The pid of this lab's daemon, or None when none runs."""
    try:
        file = pid_file(settings).open("r", encoding="ascii")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdecimal() else None
    return None


def start(settings: Settings, machines: str = "podman", progress: Callable[[str], None] = lambda _: None) -> int:
    """Start the daemon in the background and wait until the cloud answers. Returns its pid."""
    secrets.make_private_dir(settings.state_dir)
    with crash_file(settings).open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.daemon", "--machines", machines],
            cwd=Path(__file__).resolve().parents[1],
            env={
                **os.environ,
                "SLIPWAY_LAB": settings.name,
                "SLIPWAY_LAB_SLOT": str(settings.slot),
                "SLIPWAY_LAB_IMAGES": settings.images,
                "SLIPWAY_STATE_ROOT": str(settings.state_root),
                "SLIPWAY_CACHE_ROOT": str(settings.cache_root),
            },
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            raise DaemonError(
                f"The lab's daemon ended at once (exit code {code}). The end of its log:\n{tail(settings)}"
            )
        if answers(settings, process.pid):
            return process.pid
        progress(last_line(settings))
        time.sleep(0.1)
    process.terminate()
    raise DaemonError(
        f"The lab's daemon did not answer within {START_SECONDS:.0f} s. The end of its log:\n{tail(settings)}"
    )


def stop(settings: Settings) -> bool:
    """Stop the daemon; hosts go on running. False when none ran."""
    pid = find(settings)
    if pid is None:
        return False
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if find(settings) != pid:
                return True
            time.sleep(0.05)
    raise DaemonError(f"The lab's daemon (process {pid}) does not end; look at what it waits for: /proc/{pid}/stack.")


def answers(settings: Settings, pid: int) -> bool:
    """Whether the daemon with this pid has written its description and serves the API."""
    try:
        description = read_description(settings)
        if description.get("pid") != pid:
            return False
        request = urllib.request.Request(
            f"http://127.0.0.1:{settings.api_port}/_lab/status",
            headers={"Authorization": f"Bearer {description['token']}"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status) == 200
    except (OSError, ValueError, KeyError):
        return False


def read_description(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(settings.description.read_text(encoding="utf-8")))


def code_fingerprint() -> str:
    """Changes whenever a file of this package does: a daemon that runs older code is replaced by `lab up`."""
    root = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        status = path.stat()
        digest.update(f"{path.relative_to(root)} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()[:16]


def tail(settings: Settings, lines: int = 15) -> str:
    text = []
    for path in (log_file(settings), crash_file(settings)):
        if path.exists():
            text += path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(text)


def last_line(settings: Settings) -> str:
    """The newest message of the log without its date and level, for a progress line."""
    path = log_file(settings)
    if not path.exists():
        return ""
    lines = path.read_bytes()[-2000:].decode(errors="replace").splitlines()
    return lines[-1].partition(": ")[2] if lines else ""


# The process itself


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the lock on the pid file for as long as this process lives."""
    with pid_file(settings).open("a+", encoding="ascii") as file:
        # Somebody who only looks (`find`) holds the lock for a moment too.
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DaemonError(f"A daemon of the lab {settings.name!r} runs already.") from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_description(settings: Settings, release: Any, storage: Any, authority: Path) -> None:
    """`lab.json`: all that inventories, clients and people need to know about this lab."""
    from lab import ceph
    from lab.machines import images

    key = secrets.ssh_key(settings)
    mirror_url = f"https://{settings.machine_address}:{settings.mirror_port}"
    description = {
        "name": settings.name,
        "slot": settings.slot,
        "pid": os.getpid(),
        "code": code_fingerprint(),
        "api_endpoint": f"http://127.0.0.1:{settings.api_port}/v1",
        "token": secrets.api_token(settings),
        "mirror_url": mirror_url,
        "ca_certificate_path": str(authority),
        "machine_address": str(settings.machine_address),
        "admin_cidrs": [f"{settings.machine_address}/32"],
        "ssh_private_key_path": str(key.private_key_path),
        "ssh_public_key": key.public_key,
        "images": {"kind": settings.images, "note": images.note(settings)},
        "secrets_path": str(settings.state_dir / "secrets.yml"),
        "rke2": {
            "source": str(release.source),
            "release_url": f"{mirror_url}/rke2/releases/download",
            "note": release.note,
        },
        **({"ceph": ceph.describe(settings, storage, mirror_url)} if storage else {}),
    }
    secrets.write_private(settings.description, json.dumps(description, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="lab.daemon", description="The lab's daemon (started by: lab up).")
    parser.add_argument("--machines", choices=["podman", "stub"], default="podman", help="what stands behind servers")
    options = parser.parse_args(arguments)
    settings = Settings.from_environment()
    secrets.make_private_dir(settings.state_dir)
    try:
        with only_one(settings):
            _log_to_file(settings)
            asyncio.run(_serve(settings, options.machines))
    except (DaemonError, MachineError, MirrorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class _Ties:
    """What hosts tell the cloud. The backend is made before the cloud that it tells, hence this knot."""

    def __init__(self) -> None:
        self.cloud: Any = None

    def metadata(self, server_id: int, path: str) -> tuple[int, str, str] | None:
        answer: tuple[int, str, str] | None = self.cloud.metadata(server_id, path)
        return answer

    def on_exit(self, server_id: int, reason: ExitReason) -> None:
        self.cloud.on_exit(server_id, reason)

    def address_of(self, name: str) -> str | None:
        address: str | None = self.cloud.address_of(name)
        return address


def _machines(settings: Settings, kind: str, ties: _Ties) -> Machines:
    if kind == "stub":
        from lab.machines.stub import StubMachines

        return StubMachines(ties.on_exit)
    from lab.machines.podman import PodmanMachines

    return PodmanMachines(settings, ties.metadata, ties.on_exit, ties.address_of)


async def _serve(settings: Settings, kind: str) -> None:
    """The cloud's API, the release mirror and the image registry, until a signal ends them."""
    import uvicorn

    from lab import ceph, mirror, pki, registry
    from lab.cloud.app import create_app
    from lab.cloud.store import Store

    release = mirror.read_release(settings)
    storage = ceph.read_release(settings)
    folder = settings.state_dir / "pki"
    authority = pki.ensure_authority(folder, settings.name)
    mirror_address = "127.0.0.1" if kind == "stub" else str(settings.machine_address)
    outside = pki.ensure_certificate(folder, authority, "mirror", (mirror_address,))

    ties = _Ties()
    machines = _machines(settings, kind, ties)
    store = Store(settings.database)
    app = create_app(settings, store, machines, token=secrets.api_token(settings))
    ties.cloud = app.state.cloud

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """One handler for both servers, below."""
            yield

    api = Server(uvicorn.Config(app, lifespan="on", log_config=None))
    files = Server(
        uvicorn.Config(
            mirror.create_app(settings),
            lifespan="off",
            log_config=None,
            ssl_certfile=outside.certificate_path,
            ssl_keyfile=outside.key_path,
        )
    )
    servers = (
        (api, _listen("127.0.0.1", settings.api_port)),
        (files, _listen(mirror_address, settings.mirror_port)),
    )

    ended = asyncio.Event()

    def end() -> None:
        ended.set()
        for server, _ in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    write_description(settings, release, storage, authority.certificate_path)
    log.info("API on 127.0.0.1:%d, mirror on %s:%d", settings.api_port, mirror_address, settings.mirror_port)
    try:
        async with asyncio.TaskGroup() as group:
            for server, listener in servers:
                group.create_task(_run(server, listener, end))
            if storage:
                group.create_task(registry.serve(settings, mirror_address, outside, ended))
    finally:
        machines.close()
        log.info("stopped; hosts go on running")


async def _run(server: uvicorn.Server, listener: socket.socket, end: Callable[[], None]) -> None:
    """One server; when it ends by itself, so does the other."""
    try:
        await server.serve(sockets=[listener])
    finally:
        end()


def _listen(address: str, port: int) -> socket.socket:
    # Named as TCP: asyncio only switches Nagle off for sockets that say so, and each answer would be 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The uplink with the mirror's address is made a moment later, by the backend's first work.
    listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        raise DaemonError(
            f"Port {port} of {address} cannot be had ({error.strerror}): another program holds it."
        ) from error
    return listener


def _log_to_file(settings: Settings) -> None:
    handler = logging.handlers.RotatingFileHandler(log_file(settings), maxBytes=LOG_BYTES, backupCount=LOG_FILES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("asyncio", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    raise SystemExit(main())
