"""The lab's daemon: it serves the cloud, the release mirror and GitLab, runs the image registry and watches the hosts.

`python -m lab.daemon` runs it; `start`, `find` and `stop` are for the command line. A running daemon holds a lock on
its pid file, which the kernel releases with the process: a stale file or a reused pid is never mistaken for a daemon.
Hosts keep running while the daemon is stopped; the next daemon reconciles them with its database.
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

from lab import direct, secrets
from lab.machines.base import ExitReason, MachineError
from lab.mirror import MirrorError
from lab.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from lab.machines.base import Machines

LOG_BYTES = 5_000_000
LOG_FILES = 3
START_SECONDS = 120.0
"""Includes the reconciliation after a reboot of the machine, which starts every host before the API responds."""
STOP_SECONDS = 20.0
IP_FREEBIND = 15
"""From linux/in.h; not in the socket module."""

log = logging.getLogger("lab.daemon")


class DaemonError(Exception):
    """The daemon could not be started or stopped. One message for the operator, perhaps with the end of the log."""


# For the command line


def pid_file(settings: Settings) -> Path:
    return settings.state_dir / "daemon.pid"


def log_file(settings: Settings) -> Path:
    return settings.state_dir / "daemon.log"


def crash_file(settings: Settings) -> Path:
    """Output outside of the log: a traceback before logging starts, a crash of the interpreter."""
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
    """Start the daemon in the background and wait until the cloud responds. Returns its pid."""
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
                f"The lab's daemon: ended at start with exit code {code}. The end of its log:\n{tail(settings)}"
            )
        if answers(settings, process.pid):
            return process.pid
        progress(last_line(settings))
        time.sleep(0.1)
    process.terminate()
    raise DaemonError(
        f"The lab's daemon: no response within {START_SECONDS:.0f} s. The end of its log:\n{tail(settings)}"
    )


def stop(settings: Settings) -> bool:
    """Stop the daemon; hosts keep running. False when none was running."""
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
    raise DaemonError(
        f"The lab's daemon (process {pid}): does not end after SIGKILL. Read /proc/{pid}/stack for the cause."
    )


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
        with direct.urlopen(request, timeout=5) as response:
            return int(response.status) == 200
    except (OSError, ValueError, KeyError):
        return False


def read_description(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(settings.description.read_text(encoding="utf-8")))


def code_fingerprint() -> str:
    """Changes with every file of this package: `lab up` replaces a daemon that runs older code."""
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
def exclusive_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock on the pid file for as long as this process lives."""
    with pid_file(settings).open("a+", encoding="ascii") as file:
        # `find` holds the lock for a moment too.
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DaemonError(
                        f"Lab {settings.name!r}: a daemon is already running. Show it with: lab status"
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_description(settings: Settings, release: Any, storage: Any, authority: Path, runner_key: str) -> None:
    """Write `lab.json`: the description of this lab for inventories, clients and operators."""
    from lab import ceph, mirror
    from lab.charts import mirror as charts
    from lab.gitlab import service as gitlab
    from lab.machines import images

    key = secrets.ssh_key(settings)
    mirror_url = f"https://{settings.machine_address}:{settings.mirror_port}"
    description = {
        "name": settings.name,
        "slot": settings.slot,
        "pid": os.getpid(),
        "code": code_fingerprint(),
        "api_endpoint": f"http://127.0.0.1:{settings.api_port}/v1",
        "hosts_api_endpoint": f"https://{settings.machine_address}:{settings.hosts_api_port}/v1",
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
            "image_archives": mirror.image_archives(settings),
            "note": release.note,
        },
        "charts": charts.describe(settings, charts.read_source(settings), mirror_url),
        "gitlab": gitlab.describe(settings, mirror_url, runner_key),
        **({"ceph": ceph.describe(settings, storage, mirror_url)} if storage else {}),
    }
    secrets.write_private(settings.description, json.dumps(description, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="lab.daemon", description="The lab's daemon (started by: lab up).")
    parser.add_argument("--machines", choices=["podman", "stub"], default="podman", help="backend of the servers")
    options = parser.parse_args(arguments)
    settings = Settings.from_environment()
    secrets.make_private_dir(settings.state_dir)
    try:
        with exclusive_lock(settings):
            _log_to_file(settings)
            asyncio.run(_serve(settings, options.machines))
    except (DaemonError, MachineError, MirrorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class _CloudCallbacks:
    """Callbacks of the backend into the cloud; `cloud` is set later, because the cloud needs the backend first."""

    def __init__(self) -> None:
        self.cloud: Any = None

    def metadata(self, server_id: int, path: str) -> tuple[int, str, str] | None:
        response: tuple[int, str, str] | None = self.cloud.metadata(server_id, path)
        return response

    def on_exit(self, server_id: int, reason: ExitReason) -> None:
        self.cloud.on_exit(server_id, reason)

    def address_of(self, name: str) -> str | None:
        address: str | None = self.cloud.address_of(name)
        return address


def _machines(settings: Settings, kind: str, callbacks: _CloudCallbacks) -> Machines:
    if kind == "stub":
        from lab.machines.stub import StubMachines

        return StubMachines(callbacks.on_exit)
    from lab.machines.podman import PodmanMachines

    return PodmanMachines(settings, callbacks.metadata, callbacks.on_exit, callbacks.address_of)


async def _serve(settings: Settings, kind: str) -> None:
    """Serve the cloud's API, the release mirror, GitLab and the image registry until a signal."""
    import uvicorn

    from lab import ceph, mirror, pki, registry
    from lab.cloud.app import create_app
    from lab.cloud.store import Store
    from lab.gitlab import service as gitlab
    from lab.runnersim import package as runner

    release = mirror.read_release(settings)
    storage = ceph.read_release(settings)
    folder = settings.pki_dir
    authority = pki.ensure_authority(folder, settings.name)
    mirror_address = "127.0.0.1" if kind == "stub" else str(settings.machine_address)
    outside = pki.ensure_certificate(folder, authority, "mirror", (mirror_address,))

    callbacks = _CloudCallbacks()
    machines = _machines(settings, kind, callbacks)
    runner_key = await asyncio.to_thread(runner.prepare, mirror.runner_dir(settings), settings.state_dir / "runner-key")
    store = Store(settings.database)
    app = create_app(settings, store, machines, token=secrets.api_token(settings))
    callbacks.cloud = app.state.cloud

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """One handler for all servers, below."""
            yield

    api = Server(uvicorn.Config(app, lifespan="on", log_config=None))
    # For controllers and clients on hosts. The app is the same and has started once, hence no lifespan.
    hosts_api = Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            ssl_certfile=outside.certificate_path,
            ssl_keyfile=outside.key_path,
        )
    )
    files = Server(
        uvicorn.Config(
            mirror.create_app(settings),
            lifespan="off",
            log_config=None,
            ssl_certfile=outside.certificate_path,
            ssl_keyfile=outside.key_path,
        )
    )
    projects = Server(
        uvicorn.Config(
            gitlab.create_app(settings, mirror_address),
            lifespan="on",
            log_config=None,
            ssl_certfile=outside.certificate_path,
            ssl_keyfile=outside.key_path,
        )
    )
    servers = (
        (api, _listen("127.0.0.1", settings.api_port)),
        (hosts_api, _listen(mirror_address, settings.hosts_api_port)),
        (files, _listen(mirror_address, settings.mirror_port)),
        (projects, _listen(mirror_address, settings.gitlab_port)),
    )

    ended = asyncio.Event()

    def end() -> None:
        ended.set()
        for server, _ in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    write_description(settings, release, storage, authority.certificate_path, runner_key)
    log.info("API on 127.0.0.1:%d, mirror on %s:%d", settings.api_port, mirror_address, settings.mirror_port)
    try:
        async with asyncio.TaskGroup() as group:
            for server, listener in servers:
                group.create_task(_run(server, listener, end))
            if storage:
                group.create_task(registry.serve(settings, mirror_address, outside, ended))
    finally:
        machines.close()
        log.info("stopped; hosts keep running")


async def _run(server: uvicorn.Server, listener: socket.socket, end: Callable[[], None]) -> None:
    """Run one server; its end stops the others too."""
    try:
        await server.serve(sockets=[listener])
    finally:
        end()


def _listen(address: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only on sockets with an explicit IPPROTO_TCP; otherwise each response is 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The uplink with the mirror's address is created later, by the backend's first job.
    listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        raise DaemonError(
            f"Port {port} of {address}: not available ({error.strerror}). Stop the program that uses it."
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
