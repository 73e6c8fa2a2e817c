"""Where the scripts of a job run: in a shell of the runner's user, or in a container of podman.

A script is passed on standard input, so that no variable of a job is in an argument. Sources and artifacts are handled
on the host by the runner's user, in both executors.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import RunnerConfig
from .trace import Trace

GRACE_SECONDS = 600.0
"""From SIGTERM to SIGKILL for a cancelled script, as in GitLab Runner."""


class JobError(Exception):
    """The job cannot run; the text goes to its trace. `reason` is GitLab's failure reason."""

    def __init__(self, text: str, reason: str = "runner_system_failure") -> None:
        super().__init__(text)
        self.reason = reason


class Shell:
    """Scripts as the runner's user, or as this process's user when there is none."""

    def __init__(self, runner: RunnerConfig, user: str, folder: Path, job: Mapping[str, Any]) -> None:
        self.runner, self.user, self.folder, self.job = runner, user, folder, job
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped: int | None = None

    @property
    def host_command(self) -> list[str]:
        if not self.user:
            return ["bash", "--login"]
        return ["runuser", "--user", self.user, "--", "bash", "--login"]

    @property
    def command(self) -> list[str]:
        return self.host_command

    def prepare(self, trace: Trace) -> None:
        trace.line(f"Using Shell ({self.runner.settings.get('shell', 'bash')}) executor...")
        _make_build_dir(self.folder, self.user, 0o700)

    def run_on_host(self, script: str, trace: Trace) -> int:
        return self._run(self.host_command, script, trace)

    def run(self, script: str, trace: Trace) -> int:
        return self._run(self.command, script, trace)

    def _run(self, command: list[str], script: str, trace: Trace) -> int:
        home = pwd.getpwnam(self.user).pw_dir if self.user else os.environ.get("HOME", "/")
        with self._lock:
            if self._stopped is not None:
                return 128 + self._stopped
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            # Commands of the script must not read the rest of it: eval gets an empty standard input.
            process.stdin.write(f": | eval {shlex.quote(script)}\n".encode())
            process.stdin.close()
        while content := os.read(process.stdout.fileno(), 65536):
            trace.write(content)
        code = process.wait()
        with self._lock:
            self._process = None
        return code if code >= 0 else 128 - code

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End the script that runs, and every later one: SIGTERM, after the grace SIGKILL."""
        with self._lock:
            self._stopped = signal.SIGTERM
            process = self._process
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)

    def allow(self) -> None:
        """Allow scripts again after `stop`: after_script runs in cancelled jobs too."""
        with self._lock:
            self._stopped = None

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def clean_up(self) -> None:
        """The build directory stays for the next job, without the variables that are files."""
        shutil.rmtree(temporary_dir(self.folder), ignore_errors=True)


class Container(Shell):
    """Scripts in a new container each, with the settings of [runners.docker]."""

    def __init__(self, runner: RunnerConfig, user: str, folder: Path, job: Mapping[str, Any]) -> None:
        super().__init__(runner, user, folder, job)
        self.name = f"runner-{runner.short_token.lower()}-project-{job['job_info']['project_id']}-{job['id']}"
        self.image = (job.get("image") or {}).get("name") or runner.docker.get("image", "")

    @property
    def engine(self) -> list[str]:
        host = self.runner.docker.get("host", "")
        return ["podman", *(["--url", host] if host else [])]

    @property
    def command(self) -> list[str]:
        return [*self.engine, "run", *self.options, self.image, "sh", "-c", "exec $(command -v bash || command -v sh)"]

    @property
    def options(self) -> list[str]:
        docker = self.runner.docker
        words = ["--rm", "--interactive", f"--name={self.name}", "--pull=never", f"--workdir={self.folder}"]
        words += [f"--volume={path}:{path}" for path in (self.folder, temporary_dir(self.folder))]
        words += [f"--volume={volume}" for volume in docker.get("volumes", []) if ":" in volume]
        words += [f"--cap-drop={name}" for name in docker.get("cap_drop", [])]
        words += [f"--cap-add={name}" for name in docker.get("cap_add", [])]
        words += [f"--security-opt={option.replace(':true', '')}" for option in docker.get("security_opt", [])]
        words += ["--privileged"] if docker.get("privileged") else []
        named = {"memory": "memory", "memory_swap": "memory-swap", "cpus": "cpus", "network_mode": "network"}
        named |= {"user": "user", "userns_mode": "userns"}
        words += [f"--{option}={docker[key]}" for key, option in named.items() if docker.get(key)]
        words += [f"--shm-size={docker['shm_size']}b"] if docker.get("shm_size") else []
        return words

    def prepare(self, trace: Trace) -> None:
        docker = self.runner.docker
        trace.line(f"Using Docker executor with image {self.image} ...")
        if not self.image:
            raise JobError("the job names no image, and config.toml has none", "runner_system_failure")
        allowed = docker.get("allowed_images", [])
        if allowed and self.image != docker.get("image") and not any(matches(self.image, glob) for glob in allowed):
            raise JobError(
                f'The "{self.image}" image is not present on list of allowed images: {", ".join(allowed)}',
                "runner_system_failure",
            )
        self._pull(trace)
        # The container's user is not the host's.
        _make_build_dir(self.folder, self.user, 0o777)

    def _pull(self, trace: Trace) -> None:
        policies = self.runner.docker.get("pull_policy", "always")
        fault = ""
        for policy in [policies] if isinstance(policies, str) else policies:
            trace.line(f"Using pull policy {policy} for {self.image} ...")
            if policy != "always" and self._engine("image", "exists", self.image).returncode == 0:
                return
            if policy == "never":
                fault = "not present"
                continue
            done = self._engine("pull", "--quiet", self.image)
            if done.returncode == 0:
                return
            fault = done.stderr.strip()[-400:]
        raise JobError(f"Failed to pull image {self.image}: {fault}", "runner_system_failure")

    def _engine(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.engine, *words], capture_output=True, text=True, check=False)

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        """The container's processes are no children of podman's command."""
        self._engine("kill", f"--signal={int(number)}", self.name)
        if number == signal.SIGKILL:
            super()._signal(process, number)

    def clean_up(self) -> None:
        self._engine("rm", "--force", "--ignore", self.name)
        for path in (self.folder, temporary_dir(self.folder)):
            shutil.rmtree(path, ignore_errors=True)


def make(runner: RunnerConfig, user: str, folder: Path, job: Mapping[str, Any]) -> Shell:
    return (Container if runner.executor == "docker" else Shell)(runner, user, folder, job)


def temporary_dir(folder: Path) -> Path:
    """Beside the build directory, for variables that are files."""
    return folder.with_name(f"{folder.name}.tmp")


def matches(image: str, glob: str) -> bool:
    """`*` matches within a part of the path, `**` over parts."""
    pattern = "".join(
        {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", glob)
    )
    return re.fullmatch(pattern, image) is not None


def _make_build_dir(folder: Path, user: str, mode: int) -> None:
    for path in (folder, temporary_dir(folder)):
        path.mkdir(parents=True, exist_ok=True)
        if user:
            account = pwd.getpwnam(user)
            for part in (path, path.parent):
                os.chown(part, account.pw_uid, account.pw_gid)
        path.chmod(mode)
