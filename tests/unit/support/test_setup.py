"""What the verbs ask of the machine that they run on."""

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
    """A verb's prerequisites and commands."""
    found = re.search(rf"^{verb}:(.*?)##.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.M)
    assert found
    return found[1] + found[2]


def started(folder: Path, *arguments: str) -> set[str]:
    """Programs that lab/setup.sh starts, each replaced by one that does nothing."""
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


def test_the_environment_alone_needs_neither_root_nor_packages(tmp_path: Path) -> None:
    assert started(tmp_path, "--python") == {"uv"}


def test_everything_else_needs_the_packages(tmp_path: Path) -> None:
    assert {"uv", "dpkg-query"} <= started(tmp_path)


@pytest.mark.parametrize("verb", ["lint", "check"])
def test_verbs_that_read_need_the_environment_alone(verb: str) -> None:
    assert recipe(verb).split()[:2] == ["@lab/setup.sh", "--python"]


def test_every_lab_of_the_tests_has_a_name_and_a_slot_of_its_own() -> None:
    labs = [TEST, TEST2, SOAK, ROLE]
    assert len({lab.name for lab in labs}) == len({lab.slot for lab in labs} - {0}) == len(labs)


def test_make_test_leaves_the_lab_of_make_role(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr("tests.support.labs.Lab.down", lambda lab: removed.append(lab.name))
    run.remove_labs()
    assert removed == [TEST.name, TEST2.name]
    assert ROLE not in {plan.lab for stage in run.STAGES for plan in stage.plans}
    assert ROLE not in vars(soak).values()
