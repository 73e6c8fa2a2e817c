"""The report of a restore: its values are read from the restored data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.static.repository import REPOSITORY

BEGAN = "2026-11-21T10:20:00.000001"
RESTORED, LIVE = "2026-11-21 10:15:00+00", "2026-11-21 10:19:59+00"


@pytest.mark.parametrize(
    ("database", "newest"),
    [("app", RESTORED), ("", LIVE)],
    ids=["one database", "all databases, on which the server runs"],
)
def test_the_newest_row_is_of_the_restored_data(tmp_path: Path, database: str, newest: str) -> None:
    *_, report = yaml.safe_load((REPOSITORY / "playbooks/operations/restore_postgresql.yml").read_text())
    facts_of_restore = {"postgresql_backup_restored_database": {"restored_to": RESTORED}} if database else {}
    (tmp_path / "tasks").symlink_to(REPOSITORY / "playbooks/operations/tasks")
    facts = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": {"restore_started_at": BEGAN, **facts_of_restore}}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([facts, report]))
    (tmp_path / "psql").write_text(f"#!/bin/sh\necho '{LIVE}'\n")
    (tmp_path / "psql").chmod(0o755)
    inventory = tmp_path / "inventories/test/hosts"
    inventory.parent.mkdir(parents=True)
    inventory.write_text(
        "[all:vars]\nansible_connection=local\nansible_become=false\n[postgresql]\ndb\n[other]\nlocalhost\n"
    )
    values = {
        "platform_environment": "test",
        "op_restore_postgresql_target": "latest",
        "op_restore_postgresql_host": "db",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "-i", inventory, "-e",
         json.dumps(values | ({"op_restore_postgresql_database": database} if database else {}))],
        cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLIPWAY_ARTIFACTS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (kept,) = (tmp_path / "test/restore_postgresql").glob("*.json")
    assert json.loads(kept.read_text())["newest_row"] == newest
    assert f"the newest heartbeat in the restored data is of {newest}." in " ".join(done.stdout.split())
