"""What the targets of the Makefile require of the machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import run, soak
from tests.support.labs import REPOSITORY, ROLE, SOAK, TEST, TEST2

PROGRAMS = ("uv", "dpkg-query", "apt-get", "id")


def recipe(verb: str) -> str:
    """Prerequisites and commands of a Makefile target."""
    match = re.search(rf"^{verb}:(.*?)##.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.M)
    assert match
    return match[1] + match[2]


def started(folder: Path, *arguments: str) -> set[str]:
    """Programs that lab/setup.sh starts, each replaced by a test double."""
    log = folder / "log"
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {log}\necho installed\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        [str(REPOSITORY / "lab/setup.sh"), *arguments],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(log.read_text().split())


def test_python_requires_neither_root_nor_packages(tmp_path: Path) -> None:
    assert started(tmp_path, "--python") == {"uv"}


def test_default_requires_the_packages(tmp_path: Path) -> None:
    assert {"uv", "dpkg-query"} <= started(tmp_path)


@pytest.mark.parametrize("verb", ["lint", "check"])
def test_read_only_targets_require_only_python(verb: str) -> None:
    assert recipe(verb).split()[:2] == ["@lab/setup.sh", "--python"]


def test_labs_of_the_tests_have_distinct_names_and_slots() -> None:
    labs = [TEST, TEST2, SOAK, ROLE]
    assert len({lab.name for lab in labs}) == len({lab.slot for lab in labs} - {0}) == len(labs)


def test_make_test_keeps_the_lab_of_make_role(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr("tests.support.labs.Lab.down", lambda lab: removed.append(lab.name))
    run.remove_labs()
    assert removed == [TEST.name, TEST2.name]
    assert ROLE not in {plan.lab for stage in run.STAGES for plan in stage.plans}
    assert ROLE not in vars(soak).values()
