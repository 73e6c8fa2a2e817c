"""The time of a test run: tables of layers, stages and slowest tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.support.cpu import Usage
from tests.support.tracks import Result


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a table; columns that contain only numbers are aligned to the right."""
    rows = [list(row) for row in rows]
    numeric = [all(re.fullmatch(r"[\d,.]*", row[column]) for row in rows) for column in range(len(head))]
    widths = [max(len(line[column]) for line in [list(head), *rows]) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(head), *rows]
    ]


def mark(seconds: float, budget: float, outcome: str) -> str:
    over = f"OVER BUDGET by {seconds - budget:,.0f} s" if seconds > budget else ""
    return ", ".join(filter(None, [outcome if outcome != "passed" else "", over]))


def layers(results: Sequence[Result], seconds: float, budget: float) -> list[str]:
    rows = [
        [
            result.layer.name,
            f"{result.seconds:,.0f}",
            f"{result.layer.budget_seconds:,}",
            mark(result.seconds, result.layer.budget_seconds, result.outcome),
        ]
        for result in results
    ]
    total = ["total", f"{seconds:,.0f}", f"{budget:,.0f}", mark(seconds, budget, "passed")]
    return table(["layer", "seconds", "budget", ""], [*rows, total])


def stages(usages: Sequence[tuple[str, float, Usage]]) -> list[str]:
    rows = [
        [name, f"{seconds:,.0f}", f"{used.busy_percent:.0f}", f"{used.idle_seconds:,.0f}"]
        for name, seconds, used in usages
    ]
    return table(["stage", "seconds", "CPU busy %", "mostly idle, seconds"], rows)


def times(folder: Path) -> list[tuple[float, str]]:
    """(seconds with fixtures, name) of every test in the JUnit files of a folder, slowest first."""
    found = []
    for path in folder.glob("*.xml"):
        for case in ElementTree.parse(path).iter("testcase"):
            found.append((float(case.get("time", "0")), f"{case.get('classname', '')}::{case.get('name', '')}"))
    return sorted(found, reverse=True)


def slowest(folder: Path, count: int = 10) -> list[str]:
    return table(["seconds", "test"], [[f"{seconds:,.1f}", name] for seconds, name in times(folder)[:count]])
