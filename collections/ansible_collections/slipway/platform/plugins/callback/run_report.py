"""Callback: the time of each phase of a run, printed and written to a report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: run_report
type: notification
short_description: Print the time per phase and write a report of the run
description:
  - A phase is a role, or the playbook for tasks outside of roles.
  - At the end the times are printed, and written with changed counts per host and phase, start, end, versions, result
    and the note on simulations to C(<folder>/<environment>/<UTC time>/run.json).
  - The file is written at the start too, with the result C(unfinished), as the record of a killed run.
  - It holds names, numbers and times only. Results and messages of tasks may contain secrets and are not read.
  - A play adds versions or the note with M(ansible.builtin.set_stats), under the key C(run_report).
requirements:
  - named in C(callbacks_enabled) of ansible.cfg
options:
  folder:
    description: Directory of the reports; relative to that of ansible.cfg.
    type: str
    default: artifacts
    env:
      - name: SLIPWAY_ARTIFACTS
    ini:
      - section: callback_run_report
        key: folder
"""

import json
import os
import platform
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__ as ansible_version


def environment_of(sources: tuple[str, ...] | list[str] | None) -> str:
    """inventories/prod, inventories/prod/ and inventories/prod/hosts.yml are all prod; the last of several applies."""
    for source in reversed(sources or ()):
        path = Path(source)
        if "," in source:
            continue
        return (path.parent if path.suffix in (".yml", ".yaml", ".ini") else path).resolve().name
    return "none"


@dataclass
class Report:
    """Data of a run; independent of Ansible, so that it can be tested without it."""

    environment: str
    started: datetime
    playbook: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    changed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failed_tasks: list[dict[str, str]] = field(default_factory=list)
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    simulation: str = ""
    result: str = "unfinished"
    check_mode: bool = False
    ended: datetime | None = None

    def add_time(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def add_change(self, phase: str, host: str) -> None:
        self.changed[phase][host] += 1

    def document(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "playbook": self.playbook,
            "check_mode": self.check_mode,
            "result": self.result,
            "simulation": self.simulation or None,
            "started": self.started.isoformat(timespec="seconds"),
            "ended": self.ended.isoformat(timespec="seconds") if self.ended else None,
            "seconds": round((self.ended - self.started).total_seconds(), 1) if self.ended else None,
            "versions": self.versions,
            "phases": [
                {
                    "name": phase,
                    "seconds": round(seconds, 1),
                    "changed": sum(self.changed.get(phase, Counter()).values()),
                    "changed_by_host": dict(sorted(self.changed.get(phase, Counter()).items())),
                }
                for phase, seconds in self.seconds.items()
            ],
            "hosts": self.hosts,
            "failed_tasks": self.failed_tasks,
        }

    def lines(self) -> list[str]:
        """The table to print."""
        document = self.document()
        width = max([len(phase["name"]) for phase in document["phases"]] + [len("phase"), len("all")])
        lines = [f"{'phase':<{width}}  seconds  changed"]
        lines += [
            f"{phase['name']:<{width}}  {phase['seconds']:>7.1f}  {phase['changed']:>7}" for phase in document["phases"]
        ]
        changed = sum(phase["changed"] for phase in document["phases"])
        lines.append(f"{'all':<{width}}  {document['seconds'] or 0:>7.1f}  {changed:>7}")
        if self.simulation:
            lines.append(f"simulation: {self.simulation}")
        return lines


def write(path: Path, document: dict[str, Any]) -> None:
    """Write a report atomically, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    partial.replace(path)


class CallbackModule(CallbackBase):
    """Counts seconds and changes during the run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "slipway.platform.run_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        started = datetime.now(UTC)
        self.report = Report(
            environment=environment_of(context.CLIARGS.get("inventory")),
            started=started,
            check_mode=bool(context.CLIARGS.get("check")),
            versions={"ansible-core": ansible_version, "python": platform.python_version()},
        )
        self._phase = ""
        self._since = time.monotonic()
        self._path: Path | None = None

    def _start_phase(self, phase: str) -> None:
        now = time.monotonic()
        if self._phase:
            self.report.add_time(self._phase, now - self._since)
        self._phase, self._since = phase, now

    @staticmethod
    def _phase_of(item: Any) -> str:
        role = getattr(item, "_role", None)
        if role is not None:
            return str(role.get_name()).rpartition(".")[2]
        return Path(str(item.get_path()).rpartition(":")[0] or "run").stem

    def _save(self) -> None:
        if self._path is not None:
            try:
                write(self._path, self.report.document())
            except OSError as error:
                self._display.warning(
                    f"{self._path}: the report of this run could not be written ({error}). Check the directory."
                )

    def v2_playbook_on_start(self, playbook: Any) -> None:
        names = [self.report.playbook, Path(playbook._file_name).stem]
        self.report.playbook = ", ".join(name for name in names if name)
        config = getattr(constants, "CONFIG_FILE", None)  # set at run time
        root = Path(config).parent if config else Path.cwd()
        stamp = self.report.started.strftime("%Y-%m-%dT%H%M%S.%fZ")
        self._path = root / str(self.get_option("folder")) / self.report.environment / stamp / "run.json"
        self._save()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._start_phase(self._phase_of(play))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._start_phase(self._phase_of(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._start_phase(self._phase_of(task))

    def v2_runner_on_ok(self, result: Any) -> None:
        if result.result.get("changed"):
            self.report.add_change(self._phase_of(result.task), result.host.get_name())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._add_failure(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not result.task.ignore_unreachable:
            self._add_failure(result)

    def _add_failure(self, result: Any) -> None:
        self.report.failed_tasks.append(
            {
                "phase": self._phase_of(result.task),
                "task": str(result.task.name),
                "host": result.host.get_name(),
            }
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._start_phase("")
        self.report.ended = datetime.now(UTC)
        names = ("ok", "changed", "failures", "unreachable", "rescued", "skipped")
        for host in sorted(stats.processed):
            summary = stats.summarize(host)
            self.report.hosts[host] = {name: summary[name] for name in names}
        failed = any(host["failures"] or host["unreachable"] for host in self.report.hosts.values())
        self.report.result = "failed" if failed else "ok"
        added = stats.custom.get("_run", {}).get("run_report", {})
        self.report.simulation = str(added.get("simulation", ""))
        self.report.versions |= {str(name): str(value) for name, value in added.get("versions", {}).items()}
        self._save()
        self._display.display("")
        for line in self.report.lines():
            self._display.display(line)
        if self._path is not None:
            self._display.display(f"report: {self._path}")
