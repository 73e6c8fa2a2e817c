"""Builds by mmdebstrap: their mounts and processes end with them, and no folder is removed while mounted on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.machines import builds
from lab.machines.base import MachineError
from lab.machines.commands import CommandError
from tests.support.deadlines import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")

FAKE = """\
#!/bin/sh
# As mmdebstrap does during an installation: a mount in the root that it builds, processes that outlive their parent.
mkdir -p "{work}/root/proc"
mount -t tmpfs fake "{work}/root/proc"
echo precious >"{work}/root/proc/file"
setsid sleep {marker} 2>/dev/null &
echo "I: mounted" >&2
sleep {marker}
"""
BUILD = """\
import signal, sys
from pathlib import Path
from lab.machines import builds

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
with builds.work_folder(Path(sys.argv[1])) as work:
    builds.run_build(["mmdebstrap"], "fake", work, lambda line: print(line, flush=True))
"""


def mount_line(path: str) -> str:
    return f"30 1 0:50 / {path} rw,relatime - tmpfs tmpfs rw\n"


class FakeMounts:
    """A test double of the machine's mount table and of umount."""

    def __init__(self, file: Path, *paths: str, busy: str = "") -> None:
        self.file, self.paths, self.busy = file, list(paths), busy
        self.commands: list[tuple[str, ...]] = []
        self._write()

    def _write(self) -> None:
        self.file.write_text(mount_line("/") + "".join(map(mount_line, self.paths)))

    def run(self, argv: Sequence[str]) -> str:
        self.commands.append(tuple(argv))
        if argv[0] == "umount":
            if argv[1] == self.busy:
                raise CommandError(argv, "target is busy", 32)
            self.paths.remove(argv[1].replace(" ", "\\040"))
            self._write()
        return ""


def mounts_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *paths: str, busy: str = "") -> FakeMounts:
    mounts = FakeMounts(tmp_path / "mountinfo", *paths, busy=busy)
    monkeypatch.setattr(builds, "MOUNTINFO", mounts.file)
    monkeypatch.setattr(builds, "run", mounts.run)
    return mounts


def test_mounts_are_unmounted_deepest_first_and_never_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    work = tmp_path / "the x.building"
    (work / "root/dev/pts").mkdir(parents=True)
    escaped = str(work).replace(" ", "\\040")
    other = f"{tmp_path}/the\\040x.building2"
    mounts = mounts_of(monkeypatch, tmp_path, f"{escaped}/root/dev", other, f"{escaped}/root/dev/pts")
    builds.remove_folder(work)
    assert not work.exists() and mounts.paths == [other]
    inner, outer = f"{work}/root/dev/pts", f"{work}/root/dev"
    assert mounts.commands == [
        ("mount", "--make-private", outer),
        ("mount", "--make-private", inner),
        ("umount", inner),
        ("umount", outer),
    ]


def test_a_folder_with_a_busy_mount_is_not_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    work = tmp_path / "x.building"
    (work / "root/sys").mkdir(parents=True)
    (work / "root/file").touch()
    mounts_of(monkeypatch, tmp_path, f"{work}/root/sys", busy=f"{work}/root/sys")
    with pytest.raises(MachineError, match=r"x\.building cannot be removed: \S+/root/sys stays mounted .*busy"):
        builds.remove_folder(work)
    assert (work / "root/file").exists()


def test_a_folder_that_does_not_exist_needs_no_removal(tmp_path: Path) -> None:
    builds.remove_folder(tmp_path / "none")


@needs_root
def test_the_source_of_a_bind_mount_keeps_its_files(tmp_path: Path) -> None:
    """A real mount, in a mount namespace of this test."""
    source, work = tmp_path / "source", tmp_path / "x.building"
    source.mkdir()
    (source / "file").touch()
    (work / "root/sys").mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from lab.machines import builds; builds.remove_folder(Path(sys.argv[1]))"
    )
    subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "--", "sh", "-euc"),
            'mount --bind "$1" "$2/root/sys"; exec "$3" -c "$4" "$2"',
            *("sh", str(source), str(work), sys.executable, script),
        ],
        check=True,
    )
    assert not work.exists() and (source / "file").exists()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Install a test double of mmdebstrap whose processes sleep; returns the argument that identifies them."""
    marker = f"300.{os.getpid()}{len(request.node.name):03d}{time.monotonic_ns() % 10**6:06d}"
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(FAKE.format(work=tmp_path / "x.building", marker=marker))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return marker


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_build_leaves_no_mount_and_no_process(number: signal.Signals, tmp_path: Path, fake: str) -> None:
    target, work = tmp_path / "x", tmp_path / "x.building"
    parent = subprocess.Popen([sys.executable, "-c", BUILD, str(target)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and "mounted" in parent.stdout.readline()
    assert (work / "root/proc").is_dir() and not (work / "root/proc/file").exists(), "a mount is visible outside"
    assert not builds.mount_points(work)
    until(lambda: len(sleepers(fake)) == 2, 10)  # the shell has printed its line before it starts the second
    parent.send_signal(number)
    parent.wait(20)
    parent.stdout.close()
    assert all_exit(fake)
    assert work.exists() == (number == signal.SIGKILL), "only SIGKILL leaves the folder to the next build"
    with builds.work_folder(target):
        assert not list(work.iterdir())


def test_parallel_jobs_return_in_order() -> None:
    ready = threading.Barrier(2, timeout=10)
    assert builds.run_in_parallel(lambda: (ready.wait(), 1)[1], lambda: (ready.wait(), 2)[1]) == [1, 2]


@needs_root
def test_the_failure_of_one_build_stops_the_others(tmp_path: Path, fake: str) -> None:
    mounted = threading.Event()
    locked = tmp_path / "lock"

    def build() -> None:
        with builds.work_folder(tmp_path / "x") as work:
            builds.run_build(["mmdebstrap"], "fake", work, lambda line: mounted.set())

    def wait_for_another_lab() -> None:
        with builds.locked(locked):
            pytest.fail("the lock is held")

    def fail() -> None:
        assert mounted.wait(10)
        raise MachineError("the mirror has no such package")

    with locked.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match=r"^the mirror has no such package$"):
            builds.run_in_parallel(build, wait_for_another_lab, fail)
    assert all_exit(fake)
    assert not (tmp_path / "x.building").exists() and not (tmp_path / "x.log").exists()


@needs_root
def test_a_build_can_write_only_to_its_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/outside /var/lib/dpkg/outside /usr/outside /etc/outside 2>/dev/null\n"
        f"touch {tmp_path}/x.building/inside && mount -t tmpfs fake {tmp_path}/x.building\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with builds.work_folder(tmp_path / "x") as work:
        builds.run_build(["mmdebstrap"], "fake", work, lambda line: None)
        assert [path.name for path in work.iterdir()] == ["inside"]
    written = [path for path in (tmp_path, "/var/lib/dpkg", "/usr", "/etc") if Path(path, "outside").exists()]
    assert written == []


def test_a_failed_build_raises_one_sentence_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(builds, "CONFINED", ())
        monkeypatch.setattr(builds, "CONFINE", 'shift; exec "$@"')
    fake = tmp_path / "mmdebstrap"
    fake.write_text("#!/bin/sh\necho 'I: started' >&2\necho 'E: no such package' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with (
        pytest.raises(MachineError, match=r"image debian-13 failed, see \S+/x\.log: E: no such package$"),
        builds.work_folder(tmp_path / "x") as work,
    ):
        builds.run_build(["mmdebstrap"], "debian-13", work, lambda line: None)
    assert (tmp_path / "x.log").read_text() == "I: started\nE: no such package\n"
    with pytest.raises(MachineError, match="no-such-program is not installed"):
        builds.run_build(["no-such-program"], "debian-13", tmp_path, lambda line: None)


def all_exit(marker: str) -> bool:
    deadline = time.monotonic() + 10
    while sleepers(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not sleepers(marker)


def sleepers(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", marker.encode()]:
            found.append(path.parent.name)
    return found
