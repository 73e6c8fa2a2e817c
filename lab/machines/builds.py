"""Builds by mmdebstrap: confined to namespaces of their own, killed with their parent, removed without side effects."""

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
    # The parent may be killed in a way that it cannot handle.
    *("setpriv", "--pdeathsig", "KILL", "--"),
    # mmdebstrap mounts /proc, /sys and devices in the root that it builds: such a mount must end with the build, and
    # must not be visible outside. The first process of a PID namespace takes all others with it.
    *("unshare", "--mount", "--propagation", "private", "--mount-proc"),
    *("--pid", "--fork", "--kill-child=KILL", "--"),
)
FENCE = r"""
set -eu
mount --bind "$1" "$1"
for path in / /boot /etc /home /opt /root /srv /usr /var; do
  if mountpoint --quiet "$path"; then mount -o remount,bind,ro "$path"; fi
done
shift
exec "$@"
"""
"""Leaves a build nothing of this machine to write to but its work folder: a hook that runs apt without the root that is
built (APT_CONFIG of mmdebstrap alone does not confine dpkg) would install packages on the machine."""


class CancelledError(Exception):
    """This build was ended because another one, which it runs beside, failed."""


class _Group:
    """Builds that run side by side: their processes end together."""

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
        """Until the end of the context, when the process must not have been waited for yet, `cancel` kills it."""
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


def run_side_by_side(*works: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own and return their results. The first failure ends all builds and is raised."""
    group = _Group()
    with ThreadPoolExecutor(len(works), initializer=_group.set, initargs=(group,)) as pool:
        futures = [pool.submit(work) for work in works]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            group.cancel()
            raise
    return [future.result() for future in futures]


def check_cancelled() -> None:
    """For long work that is no build, as a download: ends it when a work beside it failed."""
    if (group := _group.get()) and group.cancelled:
        raise CancelledError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: of two callers at once, one builds and the other waits."""
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
    """What is mounted at the folder or below it, in the order of mounting."""
    root = folder.resolve()
    found = []
    for line in MOUNTINFO.read_text(encoding="utf-8").splitlines():
        escaped = line.split(" ")[4]
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if path.is_relative_to(root):
            found.append(path)
    return found


def remove_folder(folder: Path) -> None:
    """Unmount what is mounted in a build folder, then remove it: deleting through a bind mount empties its source."""
    if not folder.exists():
        return
    mounted = mount_points(folder)
    errors = []
    for path in mounted:
        # Unmounting a shared mount would unmount the machine's own as well.
        with suppress(CommandError):
            run(["mount", "--make-private", str(path)])
    for path in reversed(mounted):
        try:
            run(["umount", str(path)])
        except CommandError as error:
            errors.append(str(error))
    if left := mount_points(folder):
        raise MachineError(
            f"{folder} cannot be removed: {', '.join(map(str, left))} stays mounted ({'; '.join(errors)}). End the "
            f"processes that use it (fuser --verbose --mount {left[-1]}), then run it again."
        )
    shutil.rmtree(folder)


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target to build in, removed however the build ends."""
    work = target.with_suffix(".building")
    remove_folder(work)
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        remove_folder(work)


def run_build(argv: Sequence[str], title: str, work: Path, on_line: Callable[[str], None]) -> None:
    """Run mmdebstrap, each line of its messages passed on; no process of it is left however this function ends."""
    if shutil.which(argv[0]) is None:
        raise MachineError(f"{argv[0]} is not installed on this machine; run `make setup`")
    log: list[str] = []
    group = _group.get() or _Group()
    with subprocess.Popen(
        [*CONFINED, "sh", "-c", FENCE, "fence", str(work), *argv],
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
                # Ends with the last process of the build, which may hold a mount of its namespace until then.
                process.stderr.read()
                raise
    check_cancelled()
    if process.returncode:
        kept = work.with_suffix(".log")
        kept.write_text("\n".join(log) + "\n")
        errors = [line for line in log if line.startswith("E:") or "error" in line.lower()]
        reasons = errors[:3] or log[-1:] or ["no output"]
        raise MachineError(f"building image {title} failed, see {kept}: {'; '.join(reasons)}")
