"""Metrics of a load balancer: time series from the samples of its counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from starlette.datastructures import QueryParams

from lab.cloud.errors import InvalidInput
from lab.machines.base import Sample

DEFAULT_SAMPLES, MAX_SAMPLES = 200, 500

Value = Callable[[Sample, Sample], float]
"""The value between two samples."""


def _rate(counter: Callable[[Sample], int]) -> Value:
    """Per second; a counter that became smaller belongs to a new process."""

    def value(before: Sample, after: Sample) -> float:
        growth = counter(after) - counter(before)
        return (growth if growth >= 0 else counter(after)) / (after.time - before.time)

    return value


SERIES: dict[str, dict[str, Value]] = {
    "open_connections": {"open_connections": lambda before, after: float(after.open_connections)},
    "connections_per_second": {"connections_per_second": _rate(lambda sample: sample.connections)},
    "requests_per_second": {"requests_per_second": _rate(lambda sample: sample.requests)},
    "bandwidth": {
        "bandwidth.in": _rate(lambda sample: sample.bytes_in),
        "bandwidth.out": _rate(lambda sample: sample.bytes_out),
    },
}


@dataclass(frozen=True, slots=True)
class Period:
    types: tuple[str, ...]
    start: datetime
    end: datetime
    step: float

    @classmethod
    def of(cls, query: QueryParams) -> Period:
        types = tuple(type for text in query.getlist("type") for type in text.split(",") if type)
        if not types or any(type not in SERIES for type in types):
            raise InvalidInput.field("type", f"{','.join(types)!r} is not one or more of {', '.join(SERIES)}")
        start, end = _time(query, "start"), _time(query, "end")
        seconds = (end - start).total_seconds()
        if seconds <= 0:
            raise InvalidInput.field("end", "must be after start")
        step = _step(query.get("step")) or seconds / DEFAULT_SAMPLES
        return cls(types, start, end, max(step, seconds / MAX_SAMPLES, 1.0))


def _time(query: QueryParams, name: str) -> datetime:
    try:
        # A plus sign in a query is a space.
        time = datetime.fromisoformat(query.get(name, "").replace(" ", "+"))
    except ValueError:
        raise InvalidInput.field(name, f"{query.get(name)!r} is not a time such as 2026-01-30T23:50:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _step(text: str | None) -> float | None:
    if not text:
        return None
    try:
        step = float(text)
    except ValueError:
        step = 0.0
    if not 0 < step < float("inf"):
        raise InvalidInput.field("step", f"{text!r} is not a number of seconds")
    return step


def shape(samples: Sequence[Sample], period: Period) -> dict[str, Any]:
    return {
        "start": period.start.isoformat(),
        "end": period.end.isoformat(),
        "step": period.step,
        "time_series": {
            name: {"values": [[time, f"{value:.3f}"] for time, value in _buckets(samples, period, value_of)]}
            for type in period.types
            for name, value_of in SERIES[type].items()
        },
    }


def _buckets(samples: Iterable[Sample], period: Period, value_of: Value) -> Iterator[tuple[float, float]]:
    """The mean of each step in which samples were taken."""
    start, end = period.start.timestamp(), period.end.timestamp()
    found: dict[int, list[float]] = {}
    for before, after in pairwise(samples):
        if start <= after.time <= end:
            found.setdefault(int((after.time - start) / period.step), []).append(value_of(before, after))
    for number, values in sorted(found.items()):
        yield start + number * period.step, sum(values) / len(values)
