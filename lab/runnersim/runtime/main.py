"""The command gitlab-runner: run, verify, list, unregister, --version, and the two helpers of artifacts."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from . import artifacts, config
from .client import Answer, Client
from .config import Config, ConfigError, RunnerConfig
from .job import Job

FEATURES = {
    "variables": True, "raw_variables": True, "artifacts": True, "upload_multiple_artifacts": True,
    "upload_raw_artifacts": False, "artifacts_exclude": False, "multi_build_steps": True, "masking": True,
    "refspecs": True, "return_exit_code": True, "trace_checksum": True, "trace_reset": True, "trace_size": True,
    "cancelable": True, "cancel_gracefully": True, "token_mask_prefixes": True, "two_phase_job_commit": False,
}  # fmt: skip
UNHEALTHY_SECONDS = 60.0
"""How long a runner that the server rejects waits before it requests a job again."""


def log(level: str, message: str, **fields: Any) -> None:
    words = " ".join(f"{key}={value}" for key, value in fields.items())
    print(
        f"{message:<50} {words}" if level == "INFO" else f"{level}: {message:<43} {words}", file=sys.stderr, flush=True
    )


class Process:
    """`gitlab-runner run`: requests jobs, runs them, follows config.toml, drains on SIGQUIT."""

    def __init__(self, path: Path, working_directory: Path, user: str, version: str) -> None:
        self.path, self.working_directory, self.user, self.version = path, working_directory, user, version
        self.config = config.read(path)
        self.system_id = config.system_id(path)
        self._modified = self._mtime()
        self._jobs: dict[int, tuple[Job, RunnerConfig, int]] = {}
        self._lock = threading.Lock()
        self._draining = threading.Event()
        self._abort_deadline = float("inf")
        self._last_update: dict[str, str] = {}
        self._unhealthy_until: dict[str, float] = {}
        self._totals = {"success": 0, "failed": 0}

    def _mtime(self) -> float:
        return self.path.stat().st_mtime_ns if self.path.exists() else 0

    def run(self) -> int:
        for number, handler in (
            (signal.SIGQUIT, self._drain),
            (signal.SIGTERM, self._abort),
            (signal.SIGINT, self._abort),
            (signal.SIGHUP, self._reload),
        ):
            signal.signal(number, lambda *_, handler=handler: threading.Thread(target=handler, daemon=True).start())
        self._serve_metrics()
        log(
            "INFO",
            "Configuration loaded",
            builds=len(self._jobs),
            runners=len(self.config.runners),
            version=self.version,
        )
        while not self._draining.is_set():
            if self._mtime() != self._modified:
                self._reload()
            for runner in self.config.runners:
                self._request_jobs(runner)
            self._draining.wait(self.config.check_seconds)
        while self._running() and time.monotonic() < self._abort_deadline:
            time.sleep(0.2)
        log("INFO", "All workers stopped.")
        return 0

    def _running(self) -> list[Job]:
        with self._lock:
            return [job for job, _, _ in self._jobs.values()]

    def _reload(self) -> None:
        self._modified = self._mtime()
        try:
            self.config = config.read(self.path)
        except ConfigError as error:
            log("ERROR", f"Failed to load config: {error}")
        else:
            log("INFO", "Configuration loaded", builds=len(self._running()), runners=len(self.config.runners))

    def _drain(self) -> None:
        log("WARNING", "Starting graceful shutdown, waiting for builds to finish", builds=len(self._running()))
        self._draining.set()

    def _abort(self) -> None:
        log("WARNING", "Starting forceful shutdown", builds=len(self._running()))
        self._abort_deadline = time.monotonic() + self.config.shutdown_seconds
        self._draining.set()
        for job in self._running():
            job.abort()

    def _request_jobs(self, runner: RunnerConfig) -> None:
        """Request jobs of one runner until it has none or a limit is reached."""
        while not self._draining.is_set() and time.monotonic() >= self._unhealthy_until.get(runner.token, 0):
            with self._lock:
                own = [slot for _, owner, slot in self._jobs.values() if owner.token == runner.token]
                if len(self._jobs) >= self.config.concurrent or (runner.limit and len(own) >= runner.limit):
                    return
            client = client_of(runner)
            answer = client.call("POST", "jobs/request", {
                "token": runner.token, "system_id": self.system_id,
                "last_update": self._last_update.get(runner.token, ""), "info": info(runner, self.version),
            })  # fmt: skip
            if answer.status == 204:
                self._last_update[runner.token] = answer.header("X-GitLab-Last-Update")
                return
            if answer.status != 201:
                log("WARNING", f"Checking for jobs... {reason(answer)}", runner=runner.short_token)
                if answer.status == 403:
                    self._unhealthy_until[runner.token] = time.monotonic() + UNHEALTHY_SECONDS
                return
            slot = next(number for number in range(len(own) + 1) if number not in own)
            self._start(runner, client, answer.json(), slot)

    def _start(self, runner: RunnerConfig, client: Client, body: dict[str, Any], slot: int) -> None:
        builds = Path(runner.settings.get("builds_dir") or self.working_directory / "builds")
        job = Job(runner, client, body, builds, slot, self.user)
        with self._lock:
            self._jobs[job.id] = (job, runner, slot)
        log("INFO", "Checking for jobs... received", job=job.id, runner=runner.short_token)
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def _work(self, job: Job) -> None:
        try:
            state = job.run(self.version)
            self._totals[state] += 1
            log("INFO", f"Job {state}", job=job.id)
        finally:
            with self._lock:
                del self._jobs[job.id]

    def _serve_metrics(self) -> None:
        address = str(self.config.settings.get("listen_address", ""))
        if not address:
            return
        host, _, port = address.rpartition(":")
        process = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                content = process.metrics().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """No line for each request."""

        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def metrics(self) -> str:
        with self._lock:
            jobs = [runner.short_token for _, runner, _ in self._jobs.values()]
        lines = [
            f'gitlab_runner_version_info{{version="{self.version}",name="gitlab-runner"}} 1',
            f"gitlab_runner_concurrent {self.config.concurrent}",
            *(
                f'gitlab_runner_jobs{{runner="{runner.short_token}"}} {jobs.count(runner.short_token)}'
                for runner in self.config.runners
            ),
            f"gitlab_runner_jobs_total {sum(self._totals.values())}",
            f"gitlab_runner_failed_jobs_total {self._totals['failed']}",
        ]
        return "\n".join(lines) + "\n"


def client_of(runner: RunnerConfig) -> Client:
    return Client(runner.url, str(runner.settings.get("tls-ca-file", "")))


def info(runner: RunnerConfig, version: str) -> dict[str, Any]:
    return {
        "name": "gitlab-runner",
        "version": version,
        "revision": "simulation",
        "platform": "linux",
        "architecture": "amd64" if platform.machine() == "x86_64" else platform.machine(),
        "executor": runner.executor,
        "shell": "bash",
        "features": FEATURES,
    }


def reason(answer: Answer) -> str:
    detail = answer.body.decode(errors="replace")[:200]
    return f"status {answer.status}: {detail}" if answer.status else f"couldn't execute request: {detail}"


def chosen(loaded: Config, names: list[str] | None) -> list[RunnerConfig]:
    return [runner for runner in loaded.runners if not names or runner.name in names]


def verify(loaded: Config, version: str, names: list[str] | None) -> int:
    system_id, faults = config.system_id(loaded.path), 0
    for runner in chosen(loaded, names):
        body = {"token": runner.token, "system_id": system_id, "info": info(runner, version)}
        answer = client_of(runner).call("POST", "runners/verify", body)
        fields = {"runner": runner.short_token, "runner_name": runner.name}
        if answer.status == 200:
            log("INFO", "Verifying runner... is valid", **fields)
        else:
            faults += 1
            removed = "is removed" if answer.status == 403 else f"failed: {reason(answer)}"
            log("ERROR", f"Verifying runner... {removed}", **fields)
    if faults:
        log("FATAL", "Failed to verify runners")
    return 1 if faults else 0


def list_runners(loaded: Config) -> int:
    log("INFO", "Listing configured runners", ConfigFile=loaded.path)
    for runner in loaded.runners:
        log("INFO", runner.name, Executor=runner.executor, Token=runner.short_token, URL=runner.url)
    return 0


def unregister(loaded: Config, names: list[str] | None, every: bool) -> int:
    if not names and not every:
        log("FATAL", "unregister needs --name or --all-runners")
        return 1
    system_id, gone = config.system_id(loaded.path), set()
    for runner in chosen(loaded, None if every else names):
        body = {"token": runner.token, "system_id": system_id}
        answer = client_of(runner).call("DELETE", "runners/managers", body)
        if answer.status in (204, 404):
            gone.add(runner.name)
            log("INFO", "Unregistering runner manager succeeded", runner=runner.short_token)
        else:
            log("ERROR", f"Unregistering runner manager failed: {reason(answer)}", runner=runner.short_token)
            return 1
    config.remove_runners(loaded, frozenset(gone))
    return 0


def main(arguments: list[str], version: str) -> int:
    if arguments[:1] == ["artifacts-uploader"]:
        return artifacts.upload(*arguments[1:])
    if arguments[:1] == ["artifacts-downloader"]:
        return artifacts.download(*arguments[1:])
    parser = argparse.ArgumentParser(prog="gitlab-runner", description="A simulation of GitLab Runner")
    parser.add_argument("--version", "-v", action="store_true")
    commands = parser.add_subparsers(dest="command")
    for name in ("run", "verify", "list", "unregister"):
        command = commands.add_parser(name)
        command.add_argument("--config", "-c", type=Path, default=config.DEFAULT_PATH)
        if name == "run":
            command.add_argument("--working-directory", "-d", type=Path, default=Path.cwd())
            command.add_argument("--user", "-u", default="")
            command.add_argument("--service", "-n", default="gitlab-runner")
        if name in ("verify", "unregister"):
            command.add_argument("--name", "-n", action="append")
        if name == "unregister":
            command.add_argument("--all-runners", action="store_true")
    options = parser.parse_args(arguments)
    if options.version:
        print(f"Version:      {version}\nGit revision: simulation\nGO version:   none\nOS/Arch:      linux/amd64")
        return 0
    if options.command is None:
        parser.print_help()
        return 1
    try:
        return dispatch(options, version)
    except ConfigError as error:
        log("FATAL", str(error))
        return 1


def dispatch(options: argparse.Namespace, version: str) -> int:
    if options.command == "run":
        return Process(options.config, options.working_directory, options.user, version).run()
    loaded = config.read(options.config)
    commands: dict[str, Callable[[], int]] = {
        "verify": lambda: verify(loaded, version, options.name),
        "list": lambda: list_runners(loaded),
        "unregister": lambda: unregister(loaded, options.name, options.all_runners),
    }
    return commands[options.command]()
