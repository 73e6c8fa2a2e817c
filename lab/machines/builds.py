"""Runs mmdebstrap in its own namespaces; builds end with their parent and leave no mounts and no files outside."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lab.machines.base import MachineError
from lab.machines.commands import CommandError, run

MOUNTINFO = Path("/proc/self/mountinfo")

CONFINED = (
    # The parent may get SIGKILL, which it cannot handle.
    *("setpriv", "--pdeathsig", "KILL", "--"),
    # mmdebstrap mounts /proc, /sys and devices in the root that it builds: these mounts must end with the build and be
    # invisible outside. When the first process of a PID namespace ends, the kernel kills all others in it.
    *("unshare", "--mount", "--propagation", "private", "--mount-proc"),
    *("--pid", "--fork", "--kill-child=KILL", "--"),
)
CONFINE = r"""
set -eu
mount --bind "$1" "$1"
for path in / /boot /etc /home /opt /root /srv /usr /var; do
  if mountpoint --quiet "$path"; then mount -o remount,bind,ro "$path"; fi
done
shift
exec "$@"
"""
"""Mounts this machine's file systems read-only for a build, except its work folder: a hook that runs apt without a
chroot (mmdebstrap's APT_CONFIG does not confine dpkg) would install packages on this machine."""


class CancelledError(Exception):
    """This build was stopped because another one, which ran in parallel, failed."""


class _Group:
    """Builds that run in parallel: when one fails, the processes of all are killed."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._running: set[int] = set()

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            for pid in self._running:
                _kill(pid)

    @contextmanager
    def member(self, pid: int) -> Iterator[None]:
        """Within the context `cancel` kills the process. Wait for the process after the context, not in it."""
        with self._lock:
            self._running.add(pid)
            if self.cancelled:
                _kill(pid)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(pid)


_group: ContextVar[_Group | None] = ContextVar("_group", default=None)


def run_in_parallel(*jobs: Callable[[], Any]) -> list[Any]:
    """Run each job in a thread and return the results in order. The first failure stops all builds and is raised."""
    group = _Group()
    with ThreadPoolExecutor(len(jobs), initializer=_group.set, initargs=(group,)) as pool:
        futures = [pool.submit(work) for work in jobs]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            group.cancel()
            raise
    return [future.result() for future in futures]


def check_cancelled() -> None:
    """For long jobs that are no build, such as a download: raise when a parallel job failed."""
    if (group := _group.get()) and group.cancelled:
        raise CancelledError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: of two concurrent callers one builds and the other waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        while True:
            check_cancelled()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        yield


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def mount_points(folder: Path) -> list[Path]:
    """Mount points at the folder or below it, in the order of mounting."""
    root = folder.resolve()
    found = []
    for line in MOUNTINFO.read_text(encoding="utf-8").splitlines():
        escaped = line.split(" ")[4]
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if path.is_relative_to(root):
            found.append(path)
    return found


def remove_folder(folder: Path) -> None:
    """Unmount everything in a build folder, then remove it: deleting through a bind mount would empty its source."""
    if not folder.exists():
        return
    mounted = mount_points(folder)
    errors = []
    for path in mounted:
        # Unmounting a shared mount would unmount its peers on this machine as well.
        with suppress(CommandError):
            run(["mount", "--make-private", str(path)])
    for path in reversed(mounted):
        try:
            run(["umount", str(path)])
        except CommandError as error:
            errors.append(str(error))
    if left := mount_points(folder):
        raise MachineError(
            f"{folder} cannot be removed: {', '.join(map(str, left))} stays mounted ({'; '.join(errors)}). Stop the "
            f"processes that use it (fuser --verbose --mount {left[-1]}), then run the command again."
        )
    shutil.rmtree(folder)


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A build folder beside the target, removed after success and failure."""
    work = target.with_suffix(".building")
    remove_folder(work)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        remove_folder(work)


def run_build(argv: Sequence[str], title: str, work: Path, on_line: Callable[[str], None]) -> None:
    """Run mmdebstrap and call `on_line` for each line of its messages; no process of it outlives this function."""
    if shutil.which(argv[0]) is None:
        raise MachineError(f"{argv[0]} is not installed on this machine. Run `make setup`.")
    log: list[str] = []
    group = _group.get() or _Group()
    with subprocess.Popen(
        [*CONFINED, "sh", "-c", CONFINE, "fence", str(work), *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(work), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        with group.member(process.pid):
            try:
                for line in process.stderr:
                    log.append(line.rstrip())
                    on_line(line)
            except BaseException:
                _kill(process.pid)
                # The pipe closes with the last process of the build, which may hold a mount until then.
                process.stderr.read()
                raise
    check_cancelled()
    if process.returncode:
        log_path = work.with_suffix(".log")
        log_path.write_text("\n".join(log) + "\n")
        errors = [line for line in log if line.startswith("E:") or "error" in line.lower()]
        reasons = errors[:3] or log[-1:] or ["no output"]
        raise MachineError(f"building image {title} failed, see {log_path}: {'; '.join(reasons)}")
