"""The one wait of the collection: when it ends, how often it reads, and what its message says."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import waiting
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, NoQuorum, NotBootstrapped
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, first_line, wait_until

from tests.static.repository import REPOSITORY

PLUGINS = REPOSITORY / "collections/ansible_collections/slipway/platform/plugins"


@dataclass
class Clock:
    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


BUSY = CephError(errno.EBUSY, "busy", ["ceph", "status"])
DENIED = CephError(errno.EACCES, "access denied", ["ceph", "status"])


@pytest.mark.parametrize(
    ("values", "timeout_seconds", "expected", "reads"),
    [
        ([3], 10, 3, 1),
        ([1, 2, 3], 10, 3, 3),
        ([BUSY, 3], 10, 3, 2),
        ([NoQuorum(errno.ETIMEDOUT, "no answer"), NotBootstrapped(errno.ENOENT, "none"), 3], 10, 3, 3),
        ([1], 0, "osds: 1 of 3 after 0 s", 1),
        ([1, 2, 2], 5, "osds: 2 of 3 after 4 s", 3),
        ([1, BUSY, BUSY], 5, "osds: ceph status: busy (EBUSY) after 4 s", 3),
        ([ValueError("\n  broken \nmore")] * 3, 5, "osds: broken after 4 s", 3),
        ([1, DENIED], 10, "ceph status: access denied (EACCES)", 2),
        ([KeyError("name")], 10, "'name'", 1),
    ],
    ids=[
        "met at once",
        "met later",
        "met after an error that passes",
        "met after an election",
        "no time: one read",
        "timeout with the last conditions",
        "timeout with the last error",
        "timeout with the first line of an error",
        "permanent error",
        "unexpected error",
    ],
)
def test_a_wait_ends(
    clock: Clock, values: list[int | Exception], timeout_seconds: float, expected: int | str, reads: int
) -> None:
    source: Iterator[int | Exception] = iter(values)

    def read() -> int:
        value = next(source)
        if isinstance(value, Exception):
            raise value
        return value

    def wait() -> int:
        return wait_until(
            "osds",
            read,
            lambda number: [] if number == 3 else [f"{number} of 3"],
            timeout_seconds=timeout_seconds,
            interval_seconds=2,
            passing=(CephError, ValueError),
        )

    if isinstance(expected, int):
        assert wait() == expected
    else:
        with pytest.raises((NotMet, CephError, KeyError), match=f"^{re.escape(expected)}$"):
            wait()
    assert clock.slept == [2] * (reads - 1)


def test_an_error_of_the_conditions_is_retried_too(clock: Clock) -> None:
    answers = iter([BUSY, None])

    def unmet(value: int) -> list[str]:
        if (error := next(answers)) is not None:
            raise error
        return []

    assert wait_until("osds", lambda: 1, unmet, timeout_seconds=9, interval_seconds=3, passing=CephError) == 1
    assert clock.slept == [3]


def test_the_failure_has_the_last_value_and_conditions(clock: Clock) -> None:
    with pytest.raises(NotMet) as failure:
        wait_until("osds", lambda: {"up": 2}, lambda view: ["a", "b"], timeout_seconds=3, interval_seconds=1)
    assert (failure.value.value, failure.value.conditions, failure.value.waited_seconds) == ({"up": 2}, ["a", "b"], 3)
    assert str(failure.value) == "osds: a; b after 3 s"


@pytest.mark.parametrize(
    ("code", "permanent"),
    [(errno.EPERM, True), (errno.EACCES, True), (errno.EINVAL, False), (errno.ENOENT, False), (errno.EBUSY, False)],
)
def test_permanent_errors_of_ceph(code: int, permanent: bool) -> None:
    assert CephError(code, "message").permanent is permanent


def test_an_error_without_text_is_named_by_its_type() -> None:
    assert first_line(TimeoutError()) == "TimeoutError"


def test_no_module_has_a_loop_of_its_own() -> None:
    """A wait is a call of wait_until. The others sleep once, back off between requests, or have an injected clock."""
    sleeping = {
        str(path.relative_to(PLUGINS))
        for path in PLUGINS.rglob("*.py")
        if re.search(r"\btime\.sleep\b|\bsleep\(", path.read_text())
    }
    assert sleeping == {
        "module_utils/cloud.py",  # backoff between the attempts of one request
        "module_utils/configuration.py",
        "module_utils/waiting.py",
        "modules/ceph_osd_destroy.py",  # one pause, for newer statistics
    }
