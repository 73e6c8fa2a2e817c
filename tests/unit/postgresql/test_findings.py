"""Findings of verify about a database, from the results on its host."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.filter.verify import database_findings, database_probes

from tests.static.repository import REPOSITORY

SCRIPT = (REPOSITORY / "roles/verify/files/database.sh").read_text()


def test_a_database_that_serves_has_no_findings() -> None:
    hostvars = {
        "db": {
            "__verify_database_status": {"rc": 0, "stdout": "== server 0\n== write 0\n\n== backups 0"},
            "__verify_database_probe": {"findings": []},
        }
    }
    assert database_findings(hostvars, ["db"]) == []


def test_everything_that_is_wrong_is_named() -> None:
    quiet = {"findings": []}
    hostvars = {
        "gone": {"__verify_database_status": {"unreachable": True}},
        "new": {},
        "broken": {"__verify_database_status": {"failed": True, "rc": 127, "msg": "no sh"}},
        "down": {
            "__verify_database_status": {
                "rc": 0,
                "stdout": "psql: error: no such file\n  Is it running?\n== server 2\n== backups 0",
            },
            "__verify_database_probe": quiet,
        },
        "unsaved": {
            "__verify_database_status": {
                "rc": 0,
                "stdout": "== server 0\n== write 0\nthe newest backup is 30 hours old\n== backups 0",
            },
            "__verify_database_probe": quiet,
        },
        "lame": {
            "__verify_database_status": {"rc": 0, "stdout": "== server 0\n== write 0\nno such user\n== backups 1"},
            "__verify_database_probe": quiet,
        },
        "sick": {
            "__verify_database_status": {
                "rc": 0,
                "stdout": "fsync is off\nits data has no checksums\n== server 0\n== write 0\n== backups 0",
            },
            "__verify_database_probe": {"findings": ["port 6432 is shut", "it expires soon", "it expires soon"]},
        },
        "killed": {
            "__verify_database_status": {"rc": -15, "stdout": "== server 0\n== write 0\nthe newest backup is 30 ho"},
            "__verify_database_probe": quiet,
        },
        "silent": {
            "__verify_database_status": {"rc": 0, "stdout": "== server 0\n== write 0\n== backups 137"},
            "__verify_database_probe": quiet,
        },
        "unprobed": {"__verify_database_status": {"rc": 0, "stdout": "== server 0\n== write 0\n== backups 0"}},
        "mute": {
            "__verify_database_status": {"rc": 0, "stdout": "== server 0\n== write 0\n== backups 0"},
            "__verify_database_probe": {"failed": True, "msg": "no python"},
        },
    }
    assert database_findings(hostvars, [*hostvars, "unknown"]) == [
        "gone cannot be reached by SSH",
        "the database on new does not answer (it was not part of this run)",
        "the database on broken does not answer (no sh)",
        "the ports of the database on broken could not be probed (no answer)",
        "the database on down does not answer (psql: error: no such file Is it running?)",
        "backups of the database on unsaved: the newest backup is 30 hours old",
        "backups of the database on lame: no such user",
        "the database on sick: fsync is off",
        "the database on sick: its data has no checksums",
        "port 6432 is shut",
        "it expires soon",
        "backups of the database on killed: the check did not run",
        "backups of the database on silent: the check ended with 137 and printed nothing",
        "the ports of the database on unprobed could not be probed (no answer)",
        "the ports of the database on mute could not be probed (no python)",
        "the database on unknown does not answer (it was not part of this run)",
    ]


def run_script(programs: Path, backups: str, write: str) -> subprocess.CompletedProcess[str]:
    """Run the script with the psql of a directory."""
    return subprocess.run(
        ["sh", "-c", SCRIPT, "sh", "SELECT 1", backups, write],
        env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("server", "output"),
    [
        (
            "echo 'fsync is off'; echo 'WARNING: noise' >&2",
            ["fsync is off", "== server 0", "== write 0", "== backups 0"],
        ),
        (
            "echo 'psql: error: no server' >&2; exit 2",
            ["psql: error: no server", "== server 2", "== write 0", "== backups 0"],
        ),
        ("exit 3", ["", "== server 3", "== write 0", "== backups 0"]),
    ],
)
def test_the_script_prints_each_part_with_its_code(tmp_path: Path, server: str, output: list[str]) -> None:
    program = tmp_path / "psql"
    program.write_text(f'#!/bin/sh\ncase "$*" in *"CREATE SCHEMA"*) exit 0 ;; esac\n{server}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = run_script(tmp_path, "false", "true")
    assert (done.stdout.splitlines(), done.stderr) == (output, "")


@pytest.mark.parametrize(
    ("enabled", "output"),
    [
        (
            "true",
            [
                "backups are enabled, and /usr/local/lib/slipway/postgresql-backup is missing. "
                "Run playbooks/postgresql.yml"
            ],
        ),
        ("false", []),
    ],
)
def test_backups_that_are_on_need_their_tool(tmp_path: Path, enabled: str, output: list[str]) -> None:
    (tmp_path / "psql").symlink_to("/bin/true")
    done = run_script(tmp_path, enabled, "true")
    assert done.stdout.splitlines() == ["== server 0", "== write 0", *output, "== backups 0"]
    read = {
        "db": {
            "__verify_database_status": {"rc": 0, "stdout": done.stdout},
            "__verify_database_probe": {"findings": []},
        }
    }
    assert database_findings(read, ["db"]) == [f"backups of the database on db: {line}" for line in output]


@pytest.mark.parametrize(
    ("psql", "finding"),
    [
        ("exit 0", []),
        (
            "echo 'ERROR:  cannot execute CREATE SCHEMA in a read-only transaction' >&2; exit 1",
            ["the database on db accepts no write (ERROR:  cannot execute CREATE SCHEMA in a read-only transaction)"],
        ),
        ("exit 3", ["the database on db accepts no write (exit code 3)"]),
        (
            "exit 124",
            ["the database on db does not confirm a write: is the disk full, or a synchronous standby down?"],
        ),
    ],
)
def test_a_write_verifies_the_server(tmp_path: Path, psql: str, finding: list[str]) -> None:
    program = tmp_path / "psql"
    program.write_text(f'#!/bin/sh\ncase "$*" in *"CREATE SCHEMA"*) {psql} ;; esac\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = run_script(tmp_path, "false", "true")
    read = {
        "db": {
            "__verify_database_status": {"rc": 0, "stdout": done.stdout},
            "__verify_database_probe": {"findings": []},
        }
    }
    assert database_findings(read, ["db"]) == finding


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "psql").write_text('#!/bin/sh\ncase "$*" in *"CREATE SCHEMA"*) echo written ;; esac\n')
    (tmp_path / "psql").chmod(0o755)
    done = run_script(tmp_path, "false", "false")
    assert done.stdout.splitlines() == ["== server 0", "== write 0", "== backups 0"]


def test_a_write_check_that_did_not_run_is_a_finding() -> None:
    status = {"rc": 0, "stdout": "== server 0\n== backups 0"}
    read = {"db": {"__verify_database_status": status, "__verify_database_probe": {"findings": []}}}
    assert database_findings(read, ["db"]) == ["the database on db: the write check did not run"]


def test_both_ports_are_probed_under_the_name_of_clients() -> None:
    probes = database_probes("db-1", "db.example.com", "CA", 14)
    assert [probe.pop("port") for probe in probes] == [5432, 6432]
    assert probes[0] == probes[1]
    assert probes[0]["server_name"] == "db.example.com" and probes[0]["valid_days"] == 14
