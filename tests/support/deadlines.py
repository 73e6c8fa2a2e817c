"""Deadlines of waits: one setting for all of them, and longer on a machine that has more to do than it can.

A wait is on a condition, never for a fixed time. `SLIPWAY_TEST_PATIENCE` is the factor by which deadlines grow; without
it the load of the machine decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

LARGEST_FACTOR = 4.0
"""A wait that needs more than this is a fault, whatever the load."""


def patience(environment: Mapping[str, str] = os.environ, load: float | None = None, cores: int | None = None) -> float:
    """The factor for every deadline: as set, else the load of one core, from 1 to LARGEST_FACTOR."""
    if given := environment.get("SLIPWAY_TEST_PATIENCE"):
        return float(given)
    load = os.getloadavg()[0] if load is None else load
    return min(LARGEST_FACTOR, max(1.0, load / (cores or os.cpu_count() or 1)))


def until[T](
    read: Callable[[], T],
    seconds: float,
    condition: Callable[[T], object] = bool,
    *,
    pause: float = 0.5,
    errors: tuple[type[Exception], ...] = (),
) -> T:
    """Read until the condition holds for the value, and return that value.

    Errors of the given types count as "not yet"; the last of them is raised when the deadline passes. The deadline is
    `seconds` times `patience()`, which is computed anew each time: load may come while the wait lasts.
    """
    started = time.monotonic()
    while True:
        late = time.monotonic() - started > seconds * patience()
        try:
            value = read()
            if condition(value):
                return value
            assert not late, f"the condition does not hold after {time.monotonic() - started:.0f} s: {value!r}"
        except errors:
            if late:
                raise
        time.sleep(pause)
