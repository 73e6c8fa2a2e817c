"""Runs tracks of commands: sequential within a track, tracks in parallel; the first failure stops all of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.labs import REPOSITORY, Lab

LAST_LINES = 25
"""Number of lines of a failed layer that are printed again at the end."""
STOP_SECONDS = 120
"""Time for an interrupted layer to clean up."""


@dataclass(frozen=True)
class Layer:
    """One command of a test run."""

    name: str
    command: str
    budget_seconds: int


@dataclass(frozen=True)
class Plan:
    """Layers that run in sequence in one lab; the log has the plan's name."""

    name: str
    lab: Lab
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Result:
    layer: Layer
    seconds: float
    outcome: str
    """`passed`, `failed`, or `interrupted` because another layer failed."""


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Track(threading.Thread):
    """Runs a plan; prints its output while it runs (`live`) or at its end."""

    def __init__(
        self, plan: Plan, logs: Path, failure: threading.Event, interrupt: threading.Event, *, live: bool
    ) -> None:
        super().__init__()
        self.plan = plan
        self.failure = failure
        self.interrupt = interrupt
        self.live = live
        self.log = logs / f"{plan.name}.log"
        self.printed = self.log.stat().st_size if self.log.exists() else 0
        self.junit = logs / "junit"
        self.results: list[Result] = []

    @property
    def failed(self) -> bool:
        return any(result.outcome == "failed" for result in self.results)

    @property
    def must_stop(self) -> bool:
        return self.failure.is_set() or self.interrupt.is_set()

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"\n=== {text}\n")

    def run(self) -> None:
        for layer in self.plan.layers:
            started = time.monotonic()
            self.note(layer.name)
            code = self.run_layer(layer)
            outcome = "passed" if code == 0 else "interrupted" if self.must_stop else "failed"
            self.results.append(Result(layer, time.monotonic() - started, outcome))
            if code:
                self.note(f"{layer.name} {outcome} after {self.results[-1].seconds:.0f} s")
                self.failure.set()
                return

    def environment(self, layer: Layer) -> dict[str, str]:
        """Environment variables of the layer: its lab, and JUnit files of every pytest in the folder of the logs."""
        report = self.junit / f"{slug(layer.name)}.xml"
        addopts = f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}".strip()
        return {**self.plan.lab.environment(), "PYTEST_ADDOPTS": addopts, "SLIPWAY_TEST_JUNIT": str(self.junit)}

    def run_layer(self, layer: Layer) -> int:
        """Run the command; stop its process group when another track has failed or the run is interrupted."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                layer.command,
                shell=True,
                cwd=REPOSITORY,
                env=self.environment(layer),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while True:
            try:
                return process.wait(0.5)
            except subprocess.TimeoutExpired:
                if self.live:
                    self.print_new()
                if not self.must_stop:
                    continue
            for number in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, number)
                try:
                    return process.wait(STOP_SECONDS) or 1
                except subprocess.TimeoutExpired:
                    continue

    def print_new(self) -> None:
        """Print the new output."""
        with self.log.open("rb") as log:
            log.seek(self.printed)
            sys.stdout.buffer.write(log.read())
            self.printed = log.tell()
        sys.stdout.flush()

    def last_lines(self) -> str:
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, LAST_LINES))


def run(plans: Sequence[Plan], logs: Path, interrupt: threading.Event) -> list[Track]:
    """Run plans in parallel; `interrupt` or the first failure stops all of them."""
    failure = threading.Event()
    # Only the first track is printed while it runs, so that the output of tracks is not mixed.
    tracks = [Track(plan, logs, failure, interrupt, live=number == 0) for number, plan in enumerate(plans)]
    for track in tracks:
        track.start()
    try:
        for track in tracks:
            track.join()
    except KeyboardInterrupt:
        interrupt.set()
        for track in tracks:
            track.join()
    for track in tracks:
        track.print_new()
    return tracks


def interrupt_on_signals() -> threading.Event:
    """An event that SIGTERM sets, so that layers clean up; SIGINT raises KeyboardInterrupt (see `run`)."""
    interrupt = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: interrupt.set())
    # A shell starts background jobs with SIGINT ignored, and layers are stopped by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return interrupt


def print_failures(tracks: Sequence[Track]) -> None:
    """Print the last lines of failed tracks at the end, where every viewer shows them."""
    for track in tracks:
        if track.failed:
            print(f"\n=== the end of {track.log}:\n{track.last_lines()}", file=sys.stderr)
