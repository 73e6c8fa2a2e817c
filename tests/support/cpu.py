"""CPU usage of the machine over an interval, from /proc/stat."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

STAT = Path("/proc/stat")
MOSTLY_IDLE = 0.5
"""An interval with a lower share of busy cores counts as idle."""


@dataclass(frozen=True)
class Sample:
    moment: float
    busy: int
    total: int


@dataclass(frozen=True)
class Usage:
    busy_percent: float
    idle_seconds: float
    """Sum of the idle intervals."""


def parse(stat: str, moment: float) -> Sample:
    """The first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks of all cores together."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return Sample(moment, busy, busy + idle + iowait)


def usage(samples: Sequence[Sample]) -> Usage:
    first, last = samples[0], samples[-1]
    idle = sum(
        later.moment - earlier.moment
        for earlier, later in pairwise(samples)
        if later.total > earlier.total and (later.busy - earlier.busy) / (later.total - earlier.total) < MOSTLY_IDLE
    )
    total = last.total - first.total
    return Usage(100 * (last.busy - first.busy) / total if total else 0.0, idle)


class Sampler:
    """Takes a sample every second within a `with` block."""

    def __init__(self) -> None:
        self.samples = [self.sample()]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    @staticmethod
    def sample() -> Sample:
        return parse(STAT.read_text(), time.monotonic())

    def run(self) -> None:
        while not self.stopped.wait(1):
            self.samples.append(self.sample())

    def __enter__(self) -> Sampler:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.samples.append(self.sample())

    def usage(self) -> Usage:
        return usage(self.samples)
