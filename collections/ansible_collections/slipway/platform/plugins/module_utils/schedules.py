"""Limits of age, from the schedule of a timer or of RKE2."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

MARGIN_SECONDS = 2 * 3600
"""Tolerance beyond the schedule: the random delay of a timer, an upload, and an hour of daylight saving time."""
CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class ScheduleError(Exception):
    """A schedule that cannot be read; the text has the reason."""


def calendar_from_cron(expression: str) -> str:
    """The OnCalendar expression of systemd for a cron expression of five fields."""
    words = CRON_NAMES.get(expression.strip(), expression).split()
    if len(words) != 5:
        raise ScheduleError(f"the schedule {expression!r} is no cron expression of five fields")
    minute, hour, day, month, weekday = words
    if day != "*" and weekday != "*":
        raise ScheduleError(f"the schedule {expression!r} limits days of the month and of the week. Limit one of them")
    days = f"{','.join(_weekday(item, expression) for item in weekday.split(','))} " if weekday != "*" else ""
    return f"{days}*-{_field(month, 1)}-{_field(day, 1)} {_field(hour, 0)}:{_field(minute, 0)}:00"


def _field(text: str, first: int) -> str:
    """A field, with ranges and steps as systemd writes them: `*/5` starts at the first value."""
    items = [re.sub(r"^\*/", f"{first}/", item).replace("-", "..") for item in text.split(",")]
    return ",".join(items)


def _weekday(item: str, expression: str) -> str:
    if not re.fullmatch(r"[0-7](-[0-7])?", item):
        raise ScheduleError(f"the schedule {expression!r} has the day of the week {item}. Write numbers from 0 to 7")
    return "..".join(WEEKDAYS[int(number)] for number in item.split("-"))


def elapses(calendar: str) -> str:
    """The next elapses of an OnCalendar expression, as systemd-analyze prints them."""
    done = subprocess.run(
        # A thousand cover a week of four an hour, and a year of any that is rarer.
        ["systemd-analyze", "calendar", "--iterations=1000", calendar],
        capture_output=True, text=True, errors="replace", check=False, timeout=60,
        env=os.environ | {"TZ": "UTC", "LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout


def longest_interval(calendar: str, analyze: Callable[[str], str] = elapses) -> int:
    """The most seconds between two elapses of an OnCalendar expression."""
    found = re.findall(r"(?:Next elapse|Iter\S* #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", analyze(calendar))
    times = [datetime.fromisoformat(f"{text}+00:00") for text in found]
    if len(times) < 2:
        raise ScheduleError(f"the schedule {calendar!r} does not repeat, or systemd cannot read it")
    return max(int((later - earlier).total_seconds()) for earlier, later in pairwise(times))


def age_limit(calendar: str, source_calendars: Sequence[str], analyze: Callable[[str], str] = elapses) -> int:
    """The age in seconds that the newest snapshot of a part may have.

    Where another program makes the snapshots, by the most frequent of its schedules, our timer verifies them.
    """
    own = longest_interval(calendar, analyze)
    source = min((longest_interval(entry, analyze) for entry in source_calendars), default=0)
    return source + own + MARGIN_SECONDS
