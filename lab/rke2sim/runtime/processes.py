"""Child processes of `rke2`: containerd and the kubelet. They end with it; the pods that they started do not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from . import log

MAX_LOG = 20 * 1024 * 1024
RESTART_SECONDS = 5
STOP_SECONDS = 10


def command_of(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


def find(*words: str) -> int:
    """The process whose command line begins with these words, in a container of this host or not; 0 without one."""
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if tuple(command_of(pid)[: len(words)]) == words:
            return pid
    return 0


class Child:
    """One child process with a log, restarted when it exits."""

    def __init__(self, name: str, command: list[str], log_path: Path) -> None:
        self.name = name
        self.command = command
        self.log = log_path
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MAX_LOG:
            self.log.rename(f"{self.log}.1")
        with self.log.open("ab") as output:
            # Its parent may get SIGKILL, and the next start must not find another kubelet.
            self.process = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "TERM", "--", *self.command,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={"PATH": os.environ.get("PATH", ""), "HOME": "/root"},
            )  # fmt: skip
        log.info(f"Running {self.name} as process {self.process.pid}")

    async def keep_running(self) -> None:
        while True:
            if self.process is None:
                await self.start()
            assert self.process is not None
            code = await self.process.wait()
            log.error(f"{self.name} exited with code {code}, see {self.log}; restarting in {RESTART_SECONDS} s")
            await asyncio.sleep(RESTART_SECONDS)
            await self.start()

    async def stop(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
