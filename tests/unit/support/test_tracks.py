"""Tracks run in parallel until they end or until the first failure."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.support import tracks
from tests.support.labs import Lab
from tests.support.tracks import Layer, Plan, run

LAB = Lab("trial", 7)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # set by `make test` for these tests too
    (tmp_path / "junit").mkdir()
    return tmp_path


def plan(name: str, *commands: str) -> Plan:
    return Plan(name, LAB, tuple(Layer(f"{name} {number}", command, 1) for number, command in enumerate(commands)))


def outcomes(done: list[tracks.Track]) -> dict[str, str]:
    return {result.layer.name: result.outcome for track in done for result in track.results}


def test_layers_receive_their_lab_and_the_path_of_times(logs: Path) -> None:
    done = run([plan("one", 'echo "$SLIPWAY_LAB $SLIPWAY_LAB_SLOT $PYTEST_ADDOPTS"')], logs, threading.Event())
    assert outcomes(done) == {"one 0": "passed"}
    assert f"trial 7 --junitxml={logs}/junit/one-0.xml" in (logs / "one.log").read_text()


def test_a_failure_ends_parallel_layers_and_skips_later_ones(logs: Path) -> None:
    started = time.monotonic()
    done = run([plan("one", "sleep 60"), plan("two", "echo broken; exit 3", "touch never")], logs, threading.Event())
    assert time.monotonic() - started < 30
    assert outcomes(done) == {"one 0": "interrupted", "two 0": "failed"}
    assert [track.failed for track in done] == [False, True]
    assert "broken" in done[1].last_lines()


def test_a_layer_that_ignores_the_interrupt_is_killed(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "STOP_SECONDS", 1)
    interrupt = threading.Event()
    threading.Timer(1, interrupt.set).start()
    done = run([plan("one", "trap '' INT; sleep 60 & wait; sleep 60")], logs, interrupt)
    assert outcomes(done) == {"one 0": "interrupted"}
