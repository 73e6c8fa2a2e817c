"""Wait until a running system meets conditions: the one loop of this collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class NotMet(Exception):
    """The deadline passed. The text names the object, the conditions of the last read, and the seconds."""

    def __init__(self, what: str, conditions: Sequence[str], waited_seconds: float, value: Any) -> None:
        super().__init__(f"{what}: {'; '.join(conditions)} after {waited_seconds:.0f} s")
        self.conditions, self.waited_seconds, self.value = list(conditions), waited_seconds, value
        """`value` is the last one that was read; None if every read failed."""


def first_line(error: BaseException) -> str:
    """The first line of an error that is not blank; its type if it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def wait_until(
    what: str,
    read: Callable[[], T],
    unmet: Callable[[T], Sequence[str]],
    *,
    timeout_seconds: float,
    interval_seconds: float,
    passing: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """The first value of `read` for which `unmet` returns no condition; `NotMet` after the timeout.

    Reads at least once. An error of the types `passing` counts as an unmet condition and is retried, unless its
    attribute `permanent` is true; every other error, also one of `unmet`, ends the wait at once.
    """
    started_at = time.monotonic()
    value: T | None = None
    while True:
        try:
            current = read()
            value = current
            conditions = list(unmet(current))
            if not conditions:
                return current
        except passing as error:
            if getattr(error, "permanent", False):
                raise
            conditions = [first_line(error)]
        waited_seconds = time.monotonic() - started_at
        if waited_seconds + interval_seconds > timeout_seconds:
            raise NotMet(what, conditions, waited_seconds, value)
        time.sleep(interval_seconds)
