"""The daemon's life: one at a time, found by its lock, stopped cleanly, replaced after it died."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lab import daemon
from lab.settings import Settings


def test_no_pid_file_no_daemon(settings: Settings) -> None:
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_a_stale_pid_file_fools_nobody(settings: Settings) -> None:
    """The pid in it may belong to another program by now: here, to this test."""
    settings.state_dir.mkdir(parents=True)
    daemon.pid_file(settings).write_text(str(os.getpid()))
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_the_holder_of_the_lock_is_found_and_no_second_one_starts(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\nfrom lab import daemon\nfrom lab.settings import Settings\n"
            "with daemon.only_one(Settings.from_environment()):\n    print('held', flush=True)\n    time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert daemon.find(settings) == holder.pid
        with pytest.raises(daemon.DaemonError, match="runs already"), daemon.only_one(settings):
            pass
        assert daemon.stop(settings) is True
        assert daemon.find(settings) is None
    finally:
        holder.kill()
        holder.wait()


def test_the_fingerprint_follows_the_code(settings: Settings) -> None:
    assert daemon.code_fingerprint() == daemon.code_fingerprint()


def test_a_daemon_that_cannot_start_says_why(settings: Settings) -> None:
    """There is no release in the mirror's folder yet."""
    began = time.monotonic()
    with pytest.raises(daemon.DaemonError, match=r"release mirror was never filled"):
        daemon.start(settings, machines="stub")
    assert time.monotonic() - began < 30
