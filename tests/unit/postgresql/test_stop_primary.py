"""The clean stop of an old primary before its power-off: the decision, and the tasks on stubbed commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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
    play = {
        "hosts": "db-2",
        "gather_facts": False,
        "any_errors_fatal": True,  # the tasks bear it
        "vars": {
            "postgresql_replication_primary": "db-1",
            "postgresql_replication_promote_abandon": more.get("abandon", ""),
        },
        "environment": {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "STUBS": str(tmp_path),
            "UNIT": unit,
            "STOP_CODE": more.get("stop_code", "0"),
            "RECEIVED": more.get("received", "0/30000A0"),
            "CONTROL": control(more.get("cluster", "shut down")),
        },
        "tasks": [{"ansible.builtin.include_role": {"name": "postgresql_replication", "tasks_from": "promote_stop"}}],
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {"db-1": local if more.get("reachable", True) else away, "db-2": local}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "-i", tmp_path / "hosts.json",
         "-e", json.dumps({"postgresql_replication_version": "17",
                           "__postgresql_replication_program_dir": str(tmp_path),
                           "__postgresql_replication_status_state": {"receiver": receiver}})],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "SLIPWAY_ARTIFACTS": str(tmp_path / "artifacts")},
    )  # fmt: skip
    output = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is (not message), output
    assert message in output
    assert (tmp_path / "calls").read_text().splitlines() == calls


def promote(folder: Path, *, reachable: bool, fenced: str, recovering: bool | None, check: bool = False) -> str:
    """Run the entry point promote on db-2 without a cloud API, with a reachable or an unreachable db-1."""
    for name, text in {
        "systemctl": SYSTEMCTL,
        "runuser": "#!/bin/sh\necho 0/30000A0\n",
        "pg_controldata": '#!/bin/sh\nprintf %s "$CONTROL"\n',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "calls").touch()
    play = {
        "hosts": "db-2",
        "gather_facts": False,
        "vars_files": [str(REPOSITORY / "playbooks/operations/vars/postgresql.yml")],
        "environment": {
            "PATH": f"{folder}:/usr/bin:/bin",
            "STUBS": str(folder),
            "UNIT": "active",
            "STOP_CODE": "0",
            "CONTROL": control("shut down"),
        },
        "tasks": [{"ansible.builtin.include_role": {"name": "postgresql_replication", "tasks_from": "promote"}}],
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    old = local if reachable else {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {
        "db-1": old | {"provision_private_ip": "10.1.1.71"},
        "db-2": local | {"provision_private_ip": "10.1.1.72", "postgresql_standby": True},
    }
    groups = {"postgresql": {"hosts": hosts}, "rke2_server": {}, "rke2_agent": {}}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    (folder / "play.yml").write_text(json.dumps([play]))
    values: dict[str, Any] = {
        "ansible_become": False,
        "op_promote_postgresql_fenced": fenced,
        "platform_ca_certificate": "",
        "platform_ca_private_key": "",
        "platform_domain": "example.net",
        "platform_hcloud_endpoint": "http://127.0.0.1:1/v1",
        "platform_hcloud_token": "none",
        "platform_object_storage_endpoint": "https://s3.example.net",
        "platform_object_storage_region": "a",
        "platform_object_storage_bucket": "b",
        "platform_object_storage_ca_certificate": "",
        "postgresql_role_passwords": {},
        "postgresql_version": "17",
        "provision_volumes": [{"name": "data", "size_gb": 10}],
        "__postgresql_replication_program_dir": str(folder),
        "__postgresql_replication_status_state": {"receiver": "streaming"}
        | ({} if recovering is None else {"recovering": recovering}),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml", "-i", folder / "hosts.json",
         *(["--check"] if check else []), "-e", json.dumps(values)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "SLIPWAY_ARTIFACTS": str(folder / "artifacts")},
    )  # fmt: skip
    return " ".join((done.stdout + done.stderr).split())


def test_a_primary_that_cannot_be_fenced_is_left_running(tmp_path: Path) -> None:
    output = promote(tmp_path, reachable=True, fenced="", recovering=True)
    assert "Nothing has been changed. db-1 cannot be fenced" in output, output
    assert (tmp_path / "calls").read_text() == ""


@pytest.mark.parametrize("reachable", [True, False])
def test_a_standby_is_promoted_after_the_fenced_primary_is_compared(tmp_path: Path, reachable: bool) -> None:
    """Up to pg_promote, which needs a server."""
    output = promote(tmp_path, reachable=reachable, fenced="db-1", recovering=True)
    loss = (
        "nothing, db-2 has all WAL of db-1."
        if reachable
        else "writes that db-1 acknowledged after WAL position 0/30000A0"
    )
    assert f"Lost by this promotion: {loss}" in output, output
    assert "promote_run | Promote the standby" in output and "Restart the pooler" not in output
    assert (tmp_path / "calls").read_text().splitlines() == (STOP if reachable else [])


def test_a_dry_run_of_a_promotion_stops_nothing(tmp_path: Path) -> None:
    output = promote(tmp_path, reachable=True, fenced="db-1", recovering=True, check=True)
    assert "promote db-2, which has received WAL up to" in output, output
    assert "failed=0" in output and (tmp_path / "calls").read_text() == ""


def test_an_interrupted_promotion_has_no_further_step(tmp_path: Path) -> None:
    output = promote(tmp_path, reachable=True, fenced="", recovering=False)
    assert "complete the promotion of db-2" in output and "failed=0" in output, output
    assert (tmp_path / "calls").read_text() == ""
