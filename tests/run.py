"""Every layer of the tests, cheap ones first; stops at the first that fails. Called by `make test`.

Its labs have their own names and addresses, so that they can run beside a person's lab, and are removed at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}",
    "ANSIBLE_FORCE_COLOR": "0",
    "PY_COLORS": "0",
    "NO_COLOR": "1",
}
LABS = ("test", "test2")
"""Each track has a lab of its own, in the slots from 1 on."""
LOGS = Path("/var/log/slipway/test")
"""Whole output of each track of the last run, for what is printed is often cut."""
LAST_LINES = 25
"""So many lines of the layer that failed are said again at the very end."""
ENDING_SECONDS = 120
"""What a layer that is told to end has for putting away what it made."""


@dataclass(frozen=True)
class Layer:
    """One command that proves one thing."""

    name: str
    command: str


# Tracks in one line run side by side, for most of their time is waiting: hosts boot, services settle.
STAGES: tuple[tuple[tuple[Layer, ...], ...], ...] = (
    ((Layer("lint", "make --no-print-directory lint"),),),
    ((Layer("static and unit tests", "pytest -q -n 2 tests/static tests/unit"),),),
    ((Layer("lab: cloud only", "lab up --only-cloud"),),),
    (
        (Layer("platform: the whole site", "pytest -q tests/platform"),),
        (
            Layer("local cloud with official clients", "pytest -q -m 'not real' tests/lab"),
            Layer("hosts, networks and volumes", "pytest -q -m real tests/lab"),
            Layer("molecule: every role", "lab up --only-cloud && tests/molecule"),
        ),
    ),
)


def environment(number: int) -> dict[str, str]:
    name = LABS[number]
    # Hosts of one lab have the names of another's.
    facts = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(REPOSITORY / f".ansible/facts-{name}")}
    return {**ENVIRONMENT, **facts, "SLIPWAY_LAB": name, "SLIPWAY_LAB_SLOT": str(1 + number)}


class Track(threading.Thread):
    """Runs layers one after the other; its output goes through while it runs, or is shown at its end."""

    def __init__(self, layers: Sequence[Layer], number: int, failure: threading.Event, *, live: bool) -> None:
        super().__init__()
        self.layers = layers
        self.lab = environment(number)
        self.failure = failure
        self.live = live
        self.log = LOGS / f"{LABS[number]}.log"
        self.shown = self.log.stat().st_size
        self.times: list[str] = []
        self.failed = False

    def say(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"\n=== {text}\n")

    def run(self) -> None:
        for layer in self.layers:
            began = time.monotonic()
            self.say(layer.name)
            code = self.follow(layer)
            seconds = time.monotonic() - began
            if code:
                how = "was ended" if self.failure.is_set() else "failed"
                self.say(f"{layer.name} {how} after {seconds:.0f} s")
                self.failed = not self.failure.is_set()
                self.failure.set()
                return
            self.times.append(f"{seconds:5.0f} s  {layer.name}")

    def follow(self, layer: Layer) -> int:
        """Wait for the command; end it, and all it started, when another track has failed."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                layer.command,
                shell=True,
                cwd=REPOSITORY,
                env=self.lab,
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
                    self.show()
                if not self.failure.is_set():
                    continue
            for how in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, how)
                try:
                    return process.wait(ENDING_SECONDS) or 1
                except subprocess.TimeoutExpired:
                    continue

    def show(self) -> None:
        """Print what was not printed yet."""
        with self.log.open("rb") as log:
            log.seek(self.shown)
            sys.stdout.buffer.write(log.read())
            self.shown = log.tell()
        sys.stdout.flush()

    def last_lines(self) -> str:
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, LAST_LINES))


def down() -> None:
    """Remove the labs; an earlier run may have been ended by force and left some behind."""
    for number in range(len(LABS)):
        done = subprocess.run(
            ["lab", "down"], env=environment(number), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            sys.exit(f"lab down failed:\n{done.stdout}")


def run(stage: Sequence[Sequence[Layer]], failure: threading.Event) -> list[Track]:
    """Run the tracks of a stage side by side, to their end."""
    # One line of output at a time: only the first track's goes through.
    tracks = [Track(layers, number, failure, live=number == 0) for number, layers in enumerate(stage)]
    for track in tracks:
        track.start()
    try:
        for track in tracks:
            track.join()
    except KeyboardInterrupt:
        failure.set()
        for track in tracks:
            track.join()
    for track in tracks:
        track.show()
    return tracks


def main() -> int:
    began = time.monotonic()
    times: list[str] = []
    failure = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: failure.set())
    # A shell has what it runs in the background ignore this, and layers are told by it to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    down()
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in LABS:
        (LOGS / f"{name}.log").write_bytes(b"")
    try:
        for stage in STAGES:
            tracks = run(stage, failure)
            times += [line for track in tracks for line in track.times]
            if failure.is_set():
                # The end of an output is what is seen of it everywhere.
                for track in tracks:
                    if track.failed:
                        print(f"\n=== the end of {track.log}:\n{track.last_lines()}", file=sys.stderr)
                return 1
    finally:
        down()
    print(f"\n=== all layers passed in {time.monotonic() - began:.0f} s", *times, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
