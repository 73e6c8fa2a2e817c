"""The result of a run as a document, a JUnit report, and Markdown for a merge request."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ci.events import Failure, Recorder, drift

FORMAT = 1
LONGEST_LIST = 50
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|\x1b\[[0-9;]*[A-Za-z]")
"""Not allowed in XML, and colours."""


def document(recorder: Recorder, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the run did. `about` has the name of the run, its result and its times."""
    failures = recorder.failures()
    return {
        "format": FORMAT,
        **about,
        "changed": recorder.changed(),
        "plays": [
            {
                "name": play.name,
                "seconds": round(play.seconds, 1),
                "changed": len(play.changes),
                "failed": sum(failure.play_number == number and not failure.unreachable for failure in failures),
                "unreachable": sum(failure.play_number == number and failure.unreachable for failure in failures),
                "hosts": {host: dict(sorted(counts.items())) for host, counts in sorted(play.hosts.items())},
            }
            for number, play in enumerate(recorder.plays, 1)
        ],
        "hosts": recorder.stats or {},
        "drift": drift(recorder.plays),
        "failures": [vars(failure) for failure in failures],
    }


def junit(recorder: Recorder, suite: str, *, require_unchanged: bool) -> ElementTree.Element:
    """One case for each host and play."""
    root = ElementTree.Element("testsuites", name=suite)
    failures = recorder.failures()
    for number, play in enumerate(recorder.plays, 1):
        of_play = [failure for failure in failures if failure.play_number == number]
        cases = ElementTree.SubElement(root, "testsuite", name=play.name, time=f"{play.seconds:.1f}")
        names = sorted({*play.hosts, *(failure.host for failure in of_play)})
        failed = 0
        for host in names:
            case = ElementTree.SubElement(
                cases, "testcase", classname=f"{suite}.{number} {play.name}", name=host, time=f"{play.seconds:.1f}"
            )
            found = [f"{failure.task}: {failure.message}" for failure in of_play if failure.host == host]
            changed = [task for task, changed_host in play.changes if changed_host == host]
            if require_unchanged and changed:
                found += [f"changed, although nothing should: {', '.join(changed)}"]
            for message in found:
                text = CONTROL.sub("", message)
                ElementTree.SubElement(case, "failure", message=text.splitlines()[0]).text = text
            failed += bool(found)
        cases.set("tests", str(len(names)))
        cases.set("failures", str(failed))
    return root


def markdown(report: Mapping[str, Any]) -> str:
    """A summary of a run for people: what would change, or what failed."""
    mode = "dry run" if report["check_mode"] else "run"
    lines = [
        f"**{report['environment']}**: {mode} of `{report['playbook']}` at `{str(report['commit'])[:8] or 'unknown'}`: "
        f"{report['result']}, {report['changed']} changed tasks on {len(report['hosts'])} hosts, "
        f"{report['seconds']:.0f} s ({report['ended']})."
    ]
    if report["failures"]:
        lines += ["", "| failed on | task | message |", "|---|---|---|"]
        lines += [
            f"| {failure['host']} | {_cell(failure['task'])} | {_cell(failure['message'])} |"
            for failure in report["failures"][:LONGEST_LIST]
        ]
    if report["drift"]:
        lines += [
            "",
            f"| play | task that {'would change' if report['check_mode'] else 'changed'} | hosts |",
            "|---|---|---|",
        ]
        lines += [
            f"| {_cell(entry['play'])} | {_cell(entry['task'])} | {', '.join(entry['hosts'])} |"
            for entry in report["drift"][:LONGEST_LIST]
        ]
        if len(report["drift"]) > LONGEST_LIST:
            lines.append(f"| | {len(report['drift']) - LONGEST_LIST} more: see the job's artifact | |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return CONTROL.sub("", text).replace("|", "\\|").replace("\n", " ")[:300]


def failure_lines(failures: list[Failure]) -> list[str]:
    """For the end of the log, outside of the collapsed sections."""
    return [f"{failure.host}: {failure.task}: {failure.message}" for failure in failures]


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that a reader never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
