"""The parts of the soak: which are due, their records, the printed table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import soak
from tests.soak import PARTS, Part, Record, current_commit, due, newest, read_records, rows, write_records

A, B = Part("a", "true", "this", 5), Part("b", "true", "that", 90)


def record(part: str, commit: str = "c1", result: str = "passed") -> Record:
    return Record(part, commit, "2026-11-30 08:00", 150, result)


def test_passed_parts_are_not_repeated_at_the_same_commit() -> None:
    assert due([A, B], "", newest([record("a")]), "c1") == [B]
    assert due([A, B], "", newest([record("a")]), "c2") == [A, B]
    assert due([A, B], "", newest([record("a"), record("a", result="failed")]), "c1") == [A, B]


def test_a_selected_part_is_always_due() -> None:
    assert due([A, B], "a", newest([record("a")]), "c1") == [A]
    with pytest.raises(ValueError, match=r"PART=c: unknown part[.] Name one of: a, b"):
        due([A, B], "c", {}, "c1")


def test_records_are_stored_in_order(tmp_path: Path) -> None:
    path = tmp_path / "soak/results.json"
    assert read_records(path) == []
    write_records(path, [record("a"), record("b", result="failed")])
    assert read_records(path) == [record("a"), record("b", result="failed")]


def test_the_table_shows_the_last_result_of_every_part() -> None:
    lines = rows([A, B], newest([record("a", "c1", "failed"), record("a", "0123456789abcdef")]))
    assert lines[1].split() == ["a", "5", "passed", "2", "2026-11-30", "08:00", "0123456789", "this"]
    assert lines[2].split() == ["b", "90", "that"]


def test_uncommitted_changes_are_not_the_commit(tmp_path: Path) -> None:
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "--message", "a"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = current_commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "new").touch()
    assert current_commit(tmp_path).startswith(f"{clean}+changes-")


def test_an_unknown_part_is_an_error_with_the_known_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["nothing"]) == 2
    assert "kills, ceph, postgresql" in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_file_of_a_part_exists(part: Part) -> None:
    files = [word for word in part.command.split() if word.startswith("tests/")]
    assert all((soak.REPOSITORY / name).exists() for name in files)
    assert files or "-m tests.molecule" in part.command
