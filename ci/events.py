"""Events of ansible-runner → a readable log and the results per play, host and task."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]
LONGEST_MESSAGE = 4000


@dataclass
class Failure:
    play: str
    task: str
    host: str
    message: str
    unreachable: bool
    play_number: int
    """From 1: plays may have the same name."""


@dataclass
class Play:
    name: str
    started: float
    seconds: float = 0.0
    hosts: dict[str, Counter[str]] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    """Task and host."""

    def count(self, host: str, what: str) -> None:
        self.hosts.setdefault(host, Counter())[what] += 1


def failure_message(result: Mapping[str, Any]) -> str:
    """The sentence of a failed task; of a loop, those of its failed items."""
    if "censored" in result:
        return "the result is hidden by no_log"
    items = [item for item in result.get("results") or [] if isinstance(item, dict)]
    failed = [item for item in items if item.get("failed") or item.get("unreachable")]
    if failed:
        return "\n".join(dict.fromkeys(failure_message(item) for item in failed))
    parts = [str(result.get(name) or "").strip() for name in ("msg", "stderr", "module_stderr", "exception")]
    return next((part for part in parts if part), "no output")[:LONGEST_MESSAGE]


def section_name(number: int, title: str) -> str:
    return f"play_{number}_{re.sub('[^a-z0-9]+', '_', title.lower()).strip('_')}"


class Recorder:
    """Receives the events of one run in their order."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._clock = clock
        self._open_section = ""
        self._failures: list[Failure] = []
        self.plays: list[Play] = []
        self.stats: dict[str, dict[str, int]] | None = None
        """Ansible's own counts per host; None if the run did not reach its end."""

    def handle(self, event: Event) -> None:
        name, data = event.get("event", ""), event.get("event_data") or {}
        if name == "playbook_on_play_start":
            self.end_play()
            self._start_play(str(data.get("name") or data.get("play") or "play"))
        elif name == "playbook_on_stats":
            self.end_play()
            names = ("ok", "changed", "failures", "dark", "rescued", "ignored", "skipped")
            # Statistics of set_stats are in the same event.
            hosts = {host for kind in names for host in data.get(kind) or {}}
            self.stats = {
                host: {kind: int((data.get(kind) or {}).get(host, 0)) for kind in names} for host in sorted(hosts)
            }
        if text := str(event.get("stdout") or "").replace("\r\n", "\n").strip("\n"):
            self._write(text + "\n")
        if name in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped"):
            self._count(name, data)

    def _start_play(self, title: str) -> None:
        now = self._clock()
        self.plays.append(Play(title, now))
        self._open_section = section_name(len(self.plays), title)
        self._write(f"\x1b[0Ksection_start:{int(now)}:{self._open_section}[collapsed=true]\r\x1b[0K{title}\n")

    def end_play(self) -> None:
        if self._open_section:
            now = self._clock()
            self.plays[-1].seconds = now - self.plays[-1].started
            self._write(f"\x1b[0Ksection_end:{int(now)}:{self._open_section}\r\x1b[0K\n")
            self._open_section = ""

    def _count(self, name: str, data: Mapping[str, Any]) -> None:
        if not self.plays:
            return
        play, host, result = self.plays[-1], str(data.get("host", "")), data.get("res") or {}
        task = str(data.get("task") or data.get("task_action") or "")
        if name == "runner_on_skipped":
            play.count(host, "skipped")
        elif name == "runner_on_ok":
            play.count(host, "ok")
            if result.get("changed"):
                play.count(host, "changed")
                play.changes.append((task, host))
        elif data.get("ignore_errors"):
            play.count(host, "ignored")
        else:
            unreachable = name == "runner_on_unreachable"
            message = failure_message(result)
            self._failures.append(Failure(play.name, task, host, message, unreachable, len(self.plays)))

    def failures(self) -> list[Failure]:
        """The failures that no rescue and no ignore_unreachable handled.

        A failure that ends a host's run is the last of its kind there, and Ansible counts only those.
        """
        if self.stats is None:
            return list(self._failures)
        left = {
            (host, unreachable): counts["dark" if unreachable else "failures"]
            for host, counts in self.stats.items()
            for unreachable in (False, True)
        }
        kept = []
        for failure in reversed(self._failures):
            if left.get((failure.host, failure.unreachable), 0) > 0:
                left[failure.host, failure.unreachable] -= 1
                kept.append(failure)
        return kept[::-1]

    def changed(self) -> int:
        """Changed tasks. Ansible's count, since an event of more than 700 kB comes without its result."""
        if self.stats is not None:
            return sum(counts["changed"] for counts in self.stats.values())
        return sum(len(play.changes) for play in self.plays)


def drift(plays: Sequence[Play]) -> list[dict[str, Any]]:
    """Changed tasks with their hosts, in the order of the run."""
    found: dict[tuple[str, str], list[str]] = {}
    for play in plays:
        for task, host in play.changes:
            found.setdefault((play.name, task), []).append(host)
    return [{"play": play, "task": task, "hosts": sorted(set(hosts))} for (play, task), hosts in found.items()]
