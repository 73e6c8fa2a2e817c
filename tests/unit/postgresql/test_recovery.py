"""Recovery beside the server that runs: waits that end, and names that psql quotes."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from postgresql_backup import recovery, repository

NAME = """sho'p" = \\x; DROP"""


def server(tmp_path: Path, command: list[str], answers: Callable[[int], str]) -> Any:
    """A Server whose process is `command`, and whose psql answers by the number of the question; "" is no answer."""
    made = object.__new__(recovery.Server)
    made.log = tmp_path / "log"
    made.log.write_text("LOG:  starting\n")
    made.process = subprocess.Popen(command)
    queried: list[str] = []

    def query(statement: str, seconds: float = 0, **_: Any) -> str:
        queried.append(statement)
        if not (answer := answers(len(queried))):
            with made.log.open("a") as log:
                log.write("FATAL:  the database system is not yet accepting connections\n")
            raise recovery.Fault("no answer")
        return answer

    made.query = query
    return made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by a minute with each look at the clock."""
    minutes = iter(range(10_000))
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: 60 * next(minutes), sleep=lambda _: None))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["", "f|0/3000060"], ids=["no answer", "no progress"])
def test_a_recovery_that_is_stuck_is_given_up(tmp_path: Path, answer: str) -> None:
    stuck = server(tmp_path, ["sleep", "60"], lambda number: answer if number < 1000 else "t|")
    try:
        with pytest.raises(recovery.Fault, match="no progress for 600 seconds"):
            stuck.wait("NOT pg_is_in_recovery()")
    finally:
        stuck.process.kill()
        stuck.process.wait(10)


@pytest.mark.usefixtures("quick")
def test_a_recovery_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """However long it takes: 500 looks are more than eight hours here."""
    slow = server(tmp_path, ["sleep", "60"], lambda number: f"f|0/{number:X}" if number < 500 else "t|")
    try:
        slow.wait("NOT pg_is_in_recovery()")
    finally:
        slow.process.kill()
        slow.process.wait(10)


@pytest.mark.parametrize("ignored", ["INT", "INT QUIT"])
def test_a_server_that_does_not_stop_is_killed_or_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    monkeypatch.setattr(recovery, "STOP_TIMEOUT_SECONDS", 0.2)
    # One that quits may take a moment on a busy machine; the other is waited for in vain.
    monkeypatch.setattr(recovery, "QUIT_TIMEOUT_SECONDS", 0.2 if "QUIT" in ignored else 60)
    deaf = server(tmp_path, ["sh", "-c", f"trap '' {ignored}; touch {tmp_path}/ready; exec sleep 60"], lambda _: "")
    while not (tmp_path / "ready").exists():
        assert deaf.process.poll() is None
    try:
        if "QUIT" in ignored:
            with pytest.raises(recovery.Fault, match="does not stop"):
                deaf.stop()
        else:
            deaf.stop()
            assert deaf.process.returncode == -signal.SIGQUIT
    finally:
        deaf.process.kill()
        deaf.process.wait(10)


def test_a_program_that_hangs_is_given_up() -> None:
    with pytest.raises(recovery.Fault, match=r"sleep: timed out after 0\.1 seconds"):
        recovery.run_program(["sleep", "60"], 0.1)


def test_a_statement_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psql").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "psql").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(repository, "STATEMENT_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(repository.Fault, match=r"timed out after 0\.1 seconds"):
        repository.psql("SELECT 1")


def test_no_name_stands_in_the_text_of_a_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose name holds quotes is exchanged by statements that never contain it."""
    queried: list[tuple[str, dict[str, str]]] = []

    def psql(statement: str, **variables: str) -> str:
        queried.append((statement, variables))
        return "1"

    class Restored:
        def __enter__(self) -> Any:
            return SimpleNamespace(wait=lambda _: None, query=psql)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(recovery.repository, "psql", psql)
    monkeypatch.setattr(recovery.repository, "run_pgbackrest", lambda *_, **__: "")
    monkeypatch.setattr(recovery, "data_directory", lambda: tmp_path / "17/main")
    monkeypatch.setattr(recovery, "resolve_target", lambda _: ({"backups": []}, ["", ""], []))
    monkeypatch.setattr(recovery, "restore_files", lambda *_: None)
    monkeypatch.setattr(recovery, "temporary_server", lambda _: Restored())
    monkeypatch.setattr(recovery, "copy_database", lambda *_: None)
    found = recovery.restore_database(SimpleNamespace(target="latest", name=NAME))
    assert found["previous"].startswith(f"{NAME}_before_{datetime.now(UTC):%Y}")
    assert queried and not [statement for statement, _ in queried if NAME in statement]
    for statement, variables in queried:
        named = set(re.findall(r""":['"](\w+)['"]""", statement))
        assert named == set(variables), statement
        assert all(f"--set={key}={value}" in repository.psql_command(**variables) for key, value in variables.items())


def test_a_database_with_an_equals_sign_is_no_connection_string() -> None:
    assert recovery.quoted_dbname(NAME) == """dbname='sho\\'p" = \\\\x; DROP'"""
