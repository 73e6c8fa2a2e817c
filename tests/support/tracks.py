"""Commands one after the other in a track, tracks side by side; the first failure ends all of them."""

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
"""So many lines of the layer that failed are printed again at the very end."""
ENDING_SECONDS = 120
"""What a layer that is interrupted has for removing what it made."""


@dataclass(frozen=True)
class Layer:
    """One command that proves one thing."""

    name: str
    command: str
    budget_seconds: int


@dataclass(frozen=True)
class Plan:
    """Layers that run one after the other in one lab; the name is that of the log."""

    name: str
    lab: Lab
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Result:
    layer: Layer
    seconds: float
    outcome: str
    """passed, failed, or interrupted because another layer failed"""


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Track(threading.Thread):
    """Runs a plan; its output is printed while it runs, or at its end."""

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
    def must_end(self) -> bool:
        return self.failure.is_set() or self.interrupt.is_set()

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"\n=== {text}\n")

    def run(self) -> None:
        for layer in self.plan.layers:
            started = time.monotonic()
            self.note(layer.name)
            code = self.follow(layer)
            outcome = "passed" if code == 0 else "interrupted" if self.must_end else "failed"
            self.results.append(Result(layer, time.monotonic() - started, outcome))
            if code:
                self.note(f"{layer.name} {outcome} after {self.results[-1].seconds:.0f} s")
                self.failure.set()
                return

    def environment(self, layer: Layer) -> dict[str, str]:
        """Every pytest of the layer writes the times of its tests into the folder of the logs."""
        report = self.junit / f"{slug(layer.name)}.xml"
        addopts = f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}".strip()
        return {**self.plan.lab.environment(), "PYTEST_ADDOPTS": addopts, "SLIPWAY_TEST_JUNIT": str(self.junit)}

    def follow(self, layer: Layer) -> int:
        """Wait for the command; end it, and all it started, when another track has failed or the run is interrupted."""
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
                if not self.must_end:
                    continue
            for number in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, number)
                try:
                    return process.wait(ENDING_SECONDS) or 1
                except subprocess.TimeoutExpired:
                    continue

    def print_new(self) -> None:
        """Print what was not printed yet."""
        with self.log.open("rb") as log:
            log.seek(self.printed)
            sys.stdout.buffer.write(log.read())
            self.printed = log.tell()
        sys.stdout.flush()

    def last_lines(self) -> str:
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, LAST_LINES))


def run(plans: Sequence[Plan], logs: Path, interrupt: threading.Event) -> list[Track]:
    """Run plans side by side, to their end; `interrupt` ends them all, and so does the first failure."""
    failure = threading.Event()
    # One line of output at a time: only the first track's is printed while it runs.
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


def end_on_signals() -> threading.Event:
    """An event that SIGTERM sets, so that layers end in order; SIGINT is an exception (see `run`)."""
    interrupt = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: interrupt.set())
    # A shell makes what it runs in the background ignore this signal, and layers are ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return interrupt


def print_ends(tracks: Sequence[Track]) -> None:
    """The end of an output is what is seen of it everywhere."""
    for track in tracks:
        if track.failed:
            print(f"\n=== the end of {track.log}:\n{track.last_lines()}", file=sys.stderr)
