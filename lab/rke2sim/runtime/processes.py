"""Processes in place of static pods: they outlive `rke2` (KillMode=process) and are adopted by its next start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from . import log
from .pki import write

MAX_LOG = 20 * 1024 * 1024


def command_of(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


class Component:
    """One long-running process with a pid file and a log."""

    def __init__(self, name: str, command: list[str], run: Path, logs: Path) -> None:
        self.name = name
        self.command = command
        self.pid_file = run / f"{name}.json"
        self.log = logs / f"{name}.log"
        self.pid = 0
        self._child: subprocess.Popen[bytes] | None = None

    def _recorded(self) -> tuple[int, str]:
        """The process of the pid file if it still runs, and the mark of the settings it was started with."""
        try:
            record = json.loads(self.pid_file.read_text())
            pid = int(record["pid"])
        except (OSError, ValueError, KeyError):
            return 0, ""
        running = command_of(pid)
        return (pid, str(record.get("mark", ""))) if running and running == record.get("command") else (0, "")

    def running_pid(self) -> int:
        """The process of an earlier rke2, if it still runs."""
        return self._recorded()[0]

    async def ensure(self, mark: str = "") -> bool:
        """Adopt the running process if its command and settings (`mark`) are the same; otherwise start a new one."""
        pid, before = self._recorded()
        if pid and command_of(pid) == self.command and before == mark:
            self.pid = pid
            log.info(f"{self.name} is already running as process {pid}")
            return False
        if pid:
            log.info(f"Replacing {self.name} (process {pid})")
            await self.stop()
        self._start(mark)
        return True

    def _start(self, mark: str) -> None:
        for folder in (self.log.parent, self.pid_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MAX_LOG:
            self.log.rename(f"{self.log}.1")
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={"PATH": os.environ.get("PATH", ""), "HOME": "/root"},
            )  # fmt: skip
        self.pid = self._child.pid
        write(self.pid_file, json.dumps({"pid": self.pid, "command": self.command, "mark": mark}))
        log.info(f"Started {self.name} as process {self.pid}")

    async def exited(self) -> None:
        """Wait until the process exits; it may be a child or adopted."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        if self._child is not None:
            self._child.wait()

    async def keep_running(self, mark: str = "") -> None:
        """Restart the process when it exits, as the kubelet does with static pods."""
        while True:
            await self.exited()
            log.error(f"{self.name} exited, see {self.log}; restarting in 1 s")
            await asyncio.sleep(1)
            self._start(mark)

    def signal(self, number: signal.Signals) -> None:
        if self.pid and command_of(self.pid) == self.command:
            os.kill(self.pid, number)

    async def stop(self, timeout_seconds: float = 5) -> None:
        """Stop the process with SIGTERM, then SIGKILL."""
        pid, _ = self._recorded()
        if not pid:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while command_of(pid):
            if self._child is not None:
                self._child.poll()
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += 60
            await asyncio.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)
