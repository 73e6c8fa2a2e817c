"""The lab's GitLab on a free port of loopback, and the simulated runner as a process beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from lab.gitlab.api import create_app
from lab.gitlab.store import FINAL, Job, Runner, Store
from tests.lab.cloud.support import listen
from tests.support.deadlines import until

REPOSITORY = Path(__file__).resolve().parents[3]
OPERATOR = "glpat-operator"
PROJECT = "slipway/slipway"


@dataclass
class Clock:
    """Seconds since the epoch, which the test sets."""

    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Gitlab:
    """The service; `stop` and `start` leave its store and its address as they are."""

    store: Store
    clock: Clock
    url: str = ""
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))
    _port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        listener = listen(self._port)
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        app = create_app(self.store, self.url, OPERATOR)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        until(lambda: self._server and self._server.started, 30, pause=0.01)

    def stop(self) -> None:
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(30)
            assert not self._thread.is_alive()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return self.http.request(method, f"{self.url}/api/v4{path}", headers=named, **content)

    def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.call(method, path, body, PRIVATE_TOKEN=OPERATOR)

    def runner(self, **fields: Any) -> Runner:
        return self.store.create_runner(**fields)

    def queue(self, *script: str, **fields: Any) -> Job:
        return self.store.queue(Job(name=fields.pop("name", "probe"), script=script, **fields))

    def request(self, runner: Runner, system_id: str = "s_1", **features: bool) -> httpx.Response:
        info = {"version": "19.3.0", "executor": "shell", "features": features}
        return self.call("POST", "/jobs/request", {"token": runner.token, "system_id": system_id, "info": info})

    def ended(self, job: Job, seconds: float = 60) -> Job:
        return until(lambda: self.store.job(job.id), seconds, lambda job: job.state in FINAL, pause=0.05)


@contextmanager
def serving(folder: Path) -> Iterator[Gitlab]:
    clock = Clock()
    store = Store(folder / "gitlab", clock)
    store.put_project(PROJECT)
    gitlab = Gitlab(store, clock)
    gitlab.start()
    try:
        yield gitlab
    finally:
        gitlab.stop()
        gitlab.http.close()
        store.close()


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[Gitlab]:
    with serving(tmp_path) as service:
        yield service


@dataclass
class RunnerProcess:
    """`gitlab-runner run` of the simulation, with a shell executor."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As systemd does: the process, and the processes of its jobs."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may contain spaces.
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


StartRunner = Callable[..., RunnerProcess]


@pytest.fixture
def start_runner(tmp_path: Path, gitlab: Gitlab) -> Iterator[StartRunner]:
    with ExitStack() as stack:

        def start(runner: Runner, name: str = "probe", **settings: Any) -> RunnerProcess:
            folder = tmp_path / name
            folder.mkdir()
            write_config(folder / "config.toml", gitlab.url, runner.token, name, **settings)
            program = program_file(folder)
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, program, "run", "--config", folder / "config.toml", "--working-directory", folder],
                    stdout=log,
                    stderr=log,
                    # Jobs run in login shells: not with the profile of the person who runs the tests.
                    env={**os.environ, "HOME": str(folder), "GITLAB_RUNNER_PROGRAM": str(program)},
                )
            started = RunnerProcess(folder, process)
            stack.callback(started.kill)
            return started

        yield start


def write_config(path: Path, url: str, token: str, name: str, **settings: Any) -> None:
    concurrent = settings.pop("concurrent", 2)
    lines = [f"concurrent = {concurrent}", "check_interval = 1", "[[runners]]", f'name = "{name}"', f'url = "{url}"']
    lines += [f'token = "{token}"', 'executor = "shell"', *(f"{key} = {value}" for key, value in settings.items())]
    path.write_text("\n".join(lines) + "\n")


def program_file(folder: Path) -> Path:
    """The program that the package installs as /usr/bin/gitlab-runner."""
    from lab.runnersim import package

    path = folder / "gitlab-runner"
    path.write_bytes(package.program("19.3.0"))
    path.chmod(0o755)
    return path
