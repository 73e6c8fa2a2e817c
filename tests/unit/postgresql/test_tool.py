"""The tool of backups as it is installed: one zipapp."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY, load

SOURCES = REPOSITORY / "roles/postgresql_backup/files/python"


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command of the task."""
    folder = tmp_path_factory.mktemp("tool")
    (block,) = (task for task in load(REPOSITORY / "roles/postgresql_backup/tasks/install_tool.yml") if "block" in task)
    (build,) = (task for task in block["block"] if "ansible.builtin.command" in task)
    values = {
        "{{ ansible_playbook_python }}": sys.executable,
        "{{ role_path }}": str(REPOSITORY / "roles/postgresql_backup"),
        "{{ __postgresql_backup_build.path }}": str(folder),
    }
    command = build["ansible.builtin.command"]["argv"]
    for name, value in values.items():
        command = [word.replace(name, value) for word in command]
    subprocess.run(command, check=True, timeout=60)
    return folder / "postgresql-backup.pyz"


def run(zipapp: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, zipapp, *words], capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )


def test_the_zipapp_has_every_command(zipapp: Path) -> None:
    shown = run(zipapp, "--help")
    assert shown.returncode == 0, shown.stderr
    commands = {"full", "diff", "incr", "verify", "status", "findings", "heartbeat", "record-end", "target", "restore",
                "restore-database", "drill"}  # fmt: skip
    assert {name for name in commands if f"    {name} " in shown.stdout} == commands


def test_a_failure_is_a_message_and_an_exit_code(zipapp: Path) -> None:
    """Without a server, and without pgBackRest's configuration."""
    failed = run(zipapp, "heartbeat")
    assert failed.returncode == 1 and failed.stderr.count("postgresql-backup: ") == 1, failed.stderr


def test_the_tool_runs_with_the_oldest_python_of_the_hosts() -> None:
    """Debian 12 has 3.11: no syntax that is newer."""
    for path in sorted(SOURCES.rglob("*.py")):
        ast.parse(path.read_text(), feature_version=(3, 11))
