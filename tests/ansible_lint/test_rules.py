"""Each rule of .ansible-lint-rules reports the marked lines of its fixture and no other, as ansible-lint runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY

FIXTURES = Path(__file__).with_name("fixtures")
RULES = ("verb", "pronoun", "glossary")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """Rule → lines of its fixture that ansible-lint reports. One run, for a run costs seconds."""
    project = tmp_path_factory.mktemp("project")
    for rule in RULES:
        (project / f"{rule}.yml").write_text((FIXTURES / f"{rule}.yml").read_text())
    (project / ".ansible-lint").write_text(f"offline: true\nenable_list: [{', '.join(RULES)}]\n")
    command = [
        str(Path(sys.executable).with_name("ansible-lint")), "-R", "-r", str(REPOSITORY / ".ansible-lint-rules"),
        "--format", "json", "--nocolor",
        *(f"{rule}.yml" for rule in RULES),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    lines: dict[str, set[int]] = {rule: set() for rule in RULES}
    for fault in json.loads(done.stdout):
        rule, path = fault["check_name"].split("[")[0], fault["location"]["path"]
        if rule in RULES and path == f"{rule}.yml":
            lines[rule].add(fault["location"].get("lines", fault["location"].get("positions", {}))["begin"])
    return lines


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_reports_the_marked_lines(rule: str, reported: dict[str, set[int]]) -> None:
    lines = (FIXTURES / f"{rule}.yml").read_text().splitlines()
    assert reported[rule] == {number for number, line in enumerate(lines, 1) if line.endswith("# fault")}
