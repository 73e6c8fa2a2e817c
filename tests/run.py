"""Every layer of the tests, cheap ones first; stops at the first that fails. Called by `make test`.

Its labs have their own names and addresses, so that they can run beside a person's lab, and are removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
        (Layer("molecule: every role", "tests/molecule"),),
        (
            Layer("local cloud with official clients", "pytest -q -m 'not real' tests/lab"),
            Layer("hosts, networks and volumes", "pytest -q -m real tests/lab"),
            Layer("platform: the whole site", "lab up --only-cloud && pytest -q tests/platform"),
        ),
    ),
)


def environment(number: int) -> dict[str, str]:
    name = LABS[number]
    # Hosts of one lab have the names of another's.
    facts = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(REPOSITORY / f".ansible/facts-{name}")}
    return {**ENVIRONMENT, **facts, "SLIPWAY_LAB": name, "SLIPWAY_LAB_SLOT": str(1 + number)}


class Track(threading.Thread):
    """Runs layers one after the other; its output goes through, or into `output` to be shown at the end."""

    def __init__(
        self, layers: Sequence[Layer], lab: dict[str, str], failure: threading.Event, output: IO[bytes] | None
    ) -> None:
        super().__init__()
        self.layers = layers
        self.lab = lab
        self.failure = failure
        self.output = output
        self.times: list[str] = []
        self.failed: str | None = None

    def say(self, text: str) -> None:
        os.write(self.output.fileno() if self.output else sys.stdout.fileno(), f"\n=== {text}\n".encode())

    def run(self) -> None:
        for layer in self.layers:
            began = time.monotonic()
            self.say(layer.name)
            code = self.follow(layer)
            seconds = time.monotonic() - began
            if code:
                self.failed = f"{layer.name} {'was ended' if self.failure.is_set() else 'failed'} after {seconds:.0f} s"
                self.say(self.failed)
                self.failure.set()
                return
            self.times.append(f"{seconds:5.0f} s  {layer.name}")

    def follow(self, layer: Layer) -> int:
        """Wait for the command; end it, and all it started, when another track has failed."""
        process = subprocess.Popen(
            layer.command,
            shell=True,
            cwd=REPOSITORY,
            env=self.lab,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT if self.output else None,
            start_new_session=True,
        )
        while True:
            try:
                return process.wait(0.5)
            except subprocess.TimeoutExpired:
                if not self.failure.is_set():
                    continue
            for how in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, how)
                try:
                    return process.wait(ENDING_SECONDS) or 1
                except subprocess.TimeoutExpired:
                    continue

    def show(self) -> None:
        if self.output:
            self.output.seek(0)
            os.write(sys.stdout.fileno(), self.output.read())


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
    with contextlib.ExitStack() as stack:
        # One line of output at a time: only the first track's goes through.
        files = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in stage[1:])]
        tracks = [
            Track(layers, environment(number), failure, output)
            for number, (layers, output) in enumerate(zip(stage, files, strict=True))
        ]
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
    try:
        for stage in STAGES:
            tracks = run(stage, failure)
            times += [line for track in tracks for line in track.times]
            if failure.is_set():
                print("\n===", "; ".join(track.failed for track in tracks if track.failed), file=sys.stderr)
                return 1
    finally:
        down()
    print(f"\n=== all layers passed in {time.monotonic() - began:.0f} s", *times, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
