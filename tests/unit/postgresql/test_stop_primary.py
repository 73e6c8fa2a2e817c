"""The clean stop of an old primary before its power-off: the decision, and the tasks on stubbed commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_replication import promotion_loss

REPOSITORY = Path(__file__).resolve().parents[3]


def control(state: str, position: str = "0/3000028") -> str:
    return (
        f"pg_control version number:            1300\nDatabase cluster state:               {state}\n"
        f"Latest checkpoint location:           {position}\nLatest checkpoint's REDO location:    0/1000028\n"
    )


@pytest.mark.parametrize(
    ("unit", "printed", "received", "fault", "loss"),
    [
        ("active", control("shut down"), "0/30000A0", "", "nothing, db-2 has all WAL of db-1"),
        ("inactive", control("shut down"), "0/30000A0", "", "nothing, db-2 has all WAL of db-1"),
        ("active", control("shut down"), "0/2FFFFFF", "db-1 has WAL up to 0/3000028", "db-1 has WAL up to 0/3000028"),
        ("inactive", control("shut down"), "0/2FFFFFF", "db-1 has WAL up to 0/3000028", "db-2 up to 0/2FFFFFF"),
        ("active", control("shut down"), "", "the WAL position of db-2 is unknown", "position of db-2 is unknown"),
        ("active", control("in production"), "0/30000A0", "is not shut down cleanly", "after WAL position 0/30000A0"),
        ("activating", "", "0/30000A0", "its control file cannot be read", "was activating"),
        ("failed", control("in production"), "0/30000A0", "", "its control file has the state 'in production'"),
        ("", "", "0/30000A0", "", "after WAL position 0/30000A0 and had not sent, or nothing if"),
        ("", "", "", "", "after WAL position unknown"),
    ],
)
def test_the_end_of_the_wal_decides_what_is_lost(unit: str, printed: str, received: str, fault: str, loss: str) -> None:
    found = promotion_loss("db-2", "db-1", unit, printed, received)
    assert bool(found["faults"]) is bool(fault) and fault in "; ".join(found["faults"])
    assert loss in found["loss"]


SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
  "show --property=ActiveState") echo "$UNIT"; exit ;;
  "stop postgresql@17-main") code=$STOP_CODE ;;
esac
case $1 in
  show) printf 'LoadState=loaded\\nActiveState=%s\\n' "$(cat "$STUBS/$2.state" 2>/dev/null || echo active)" ;;
  stop) echo "$*" >>"$STUBS/calls"; echo inactive >"$STUBS/$2.state" ;;
  start) echo "$*" >>"$STUBS/calls"; echo active >"$STUBS/$2.state" ;;
esac
exit "${code:-0}"
"""
STOP = ["stop pgbouncer", "stop postgresql@17-main"]
START = ["start postgresql@17-main", "start pgbouncer"]
LACKING = "db-1 has WAL up to 0/3000028, db-2 up to 0/2000000"


@pytest.mark.parametrize(
    ("unit", "receiver", "more", "calls", "message"),
    [
        # psql would end with 2 or 1 in the first two: no connection left, starting up
        ("active", "streaming", {}, STOP, ""),
        ("activating", None, {}, [], "PostgreSQL is activating, and db-2 does not stream from it"),
        ("active", "streaming", {"stop_code": "1", "abandon": "db-1"}, STOP, ""),
        ("active", "streaming", {"received": "0/2000000"}, STOP + START, LACKING),
        ("active", "streaming", {"stop_code": "1"}, STOP + START, "is not powered off"),
        ("inactive", None, {"received": "0/2000000"}, [], LACKING),
        ("failed", None, {"cluster": "in production"}, [], ""),
        ("active", "streaming", {"reachable": False}, [], ""),
    ],
)  # fmt: skip
def test_a_reachable_old_primary_is_stopped_cleanly(
    tmp_path: Path, unit: str, receiver: str | None, more: dict[str, Any], calls: list[str], message: str
) -> None:
    for name, text in {
        "systemctl": SYSTEMCTL,
        "runuser": '#!/bin/sh\necho "$RECEIVED"\n',
        "pg_controldata": '#!/bin/sh\nprintf %s "$CONTROL"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "calls").touch()
    role = REPOSITORY / "roles/postgresql"
    promotion = yaml.safe_load((REPOSITORY / "playbooks/operations/promote_postgresql.yml").read_text())
    play = {
        "hosts": "db-2",
        "gather_facts": False,
        "any_errors_fatal": True,  # the tasks bear it
        "vars_files": [str(role / "defaults/main.yml"), str(role / "vars/main.yml")],
        "vars": {
            "old": "db-1",
            "state": {"receiver": receiver},
            "wal_position_argv": promotion[1]["vars"]["wal_position_argv"],
            "op_promote_postgresql_abandon": more.get("abandon", ""),
        },
        "environment": {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "STUBS": str(tmp_path),
            "UNIT": unit,
            "STOP_CODE": more.get("stop_code", "0"),
            "RECEIVED": more.get("received", "0/30000A0"),
            "CONTROL": control(more.get("cluster", "shut down")),
        },
        "tasks": [
            {
                "ansible.builtin.include_tasks": str(
                    REPOSITORY / "playbooks/operations/tasks/stop_postgresql_primary.yml"
                )
            }
        ],
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {"db-1": local if more.get("reachable", True) else away, "db-2": local}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "-i", tmp_path / "hosts.json",
         "-e", json.dumps({"postgresql_version": "17", "__postgresql_program_dir": str(tmp_path)})],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "SLIPWAY_ARTIFACTS": str(tmp_path / "artifacts")},
    )  # fmt: skip
    output = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is (not message), output
    assert message in output
    assert (tmp_path / "calls").read_text().splitlines() == calls
