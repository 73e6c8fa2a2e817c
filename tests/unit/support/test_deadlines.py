"""Waiting for a condition, with a deadline that grows with the load."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.support.deadlines import LARGEST_FACTOR, timeout_factor, until


@pytest.mark.parametrize(
    ("environment", "load", "factor"),
    [({}, 0.1, 1.0), ({}, 5.0, 2.5), ({}, 90.0, LARGEST_FACTOR), ({"SLIPWAY_TEST_TIMEOUT_FACTOR": "7"}, 0.1, 7.0)],
)
def test_the_timeout_factor_is_the_setting_or_the_load(environment: dict[str, str], load: float, factor: float) -> None:
    assert timeout_factor(environment, load, cores=2) == factor


def test_until_returns_the_value_for_which_the_condition_holds() -> None:
    values = itertools.count()
    assert until(lambda: next(values), 10, lambda value: value == 3, pause=0) == 3


def test_a_missed_deadline_shows_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_TEST_TIMEOUT_FACTOR", "1")
    with pytest.raises(AssertionError, match=r"does not hold after .*: 'red'"):
        until(lambda: "red", 0, lambda colour: colour == "green", pause=0)


def test_errors_of_the_given_types_are_raised_only_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_TEST_TIMEOUT_FACTOR", "1")
    answers = iter([OSError("refused"), OSError("refused"), "ok"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert until(read, 10, pause=0, errors=(OSError,)) == "ok"
    with pytest.raises(ValueError, match="not a number"):
        until(lambda: int("not a number"), 10)

    def fail() -> bool:
        raise OSError("still refused")

    with pytest.raises(OSError, match="still refused"):
        until(fail, 0, pause=0, errors=(OSError,))


def test_a_deadline_grows_while_the_wait_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = itertools.chain([1.0], itertools.repeat(LARGEST_FACTOR))
    monkeypatch.setattr("tests.support.deadlines.timeout_factor", lambda: next(factors))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    moments = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(moments)))
    values = itertools.count()
    assert until(lambda: next(values), 3, lambda value: value == 8) == 8
