"""Deadlines of waits: one factor for all of them, which grows with the load of the machine.

Tests wait for conditions, never for a fixed time. Without `SLIPWAY_TEST_TIMEOUT_FACTOR` the factor is computed from the
load.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

LARGEST_FACTOR = 4.0
"""A wait that needs more than this is a failure at any load."""


def timeout_factor(
    environment: Mapping[str, str] = os.environ, load: float | None = None, cores: int | None = None
) -> float:
    """The factor of every deadline: the setting, else the load per core, from 1 to LARGEST_FACTOR."""
    if configured := environment.get("SLIPWAY_TEST_TIMEOUT_FACTOR"):
        return float(configured)
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
    """Read until the condition holds, and return the value.

    Errors of the given types count as "not yet"; the last of them is raised when the deadline passes. The deadline is
    `seconds` times `timeout_factor()`, computed at each attempt, since the load may rise during the wait.
    """
    started = time.monotonic()
    while True:
        late = time.monotonic() - started > seconds * timeout_factor()
        try:
            value = read()
            if condition(value):
                return value
            assert not late, f"the condition does not hold after {time.monotonic() - started:.0f} s: {value!r}"
        except errors:
            if late:
                raise
        time.sleep(pause)
