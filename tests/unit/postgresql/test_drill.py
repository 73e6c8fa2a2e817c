"""The play of a drill, with a stubbed unit: it reports the result of its own drill only."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.static.repository import REPOSITORY

REPORT = {"restored_to": "2026-11-21 10:15:00+00", "rto_seconds": 7.5, "rpo_seconds": 31.5}
GOOD = {"ok": True, "at": 1795255127, "good": 1795255127, "fault": "", "report": REPORT}
DAMAGED = GOOD | {"ok": False, "fault": "damaged pages", "report": {"fault": "damaged pages"}}
NO_RESULT = "db: the drill recorded no result; the newest is "


def play(folder: Path, before: dict[str, Any] | None, after: dict[str, Any] | None, code: int) -> tuple[int, str]:
    """Run the play where the unit ends with a code, and leaves the results `after`, or those `before` when None."""
    results = folder / "results.json"
    if before is not None:
        results.write_text(json.dumps({"drill": before}))
    (folder / "after.json").write_text(json.dumps({"drill": after}))
    write = f'sed "s/\\"NOW\\"/$(date +%s)/" {folder}/after.json > {results}' if after else ":"
    (folder / "systemctl").write_text(f"#!/bin/sh\n{write}\nexit {code}\n")
    (folder / "systemctl").chmod(0o755)
    inventory = folder / "inventories/test/hosts"
    inventory.parent.mkdir(parents=True)
    inventory.write_text("[postgresql]\ndb ansible_connection=local ansible_become=false\n")
    values = {"__postgresql_backup_report_dir": str(folder), "platform_environment": "test"}
    done = subprocess.run(
        ["ansible-playbook", "playbooks/operations/drill_postgresql.yml", "-i", inventory, "-e", json.dumps(values)],
        cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PATH": f"{folder}:{REPOSITORY}/.venv/bin:/usr/bin:/bin", "SLIPWAY_ARTIFACTS": str(folder)},
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("before", "after", "code", "message"),
    [
        (GOOD | {"began": 1795255100}, None, 1, f"{NO_RESULT}of a drill that started at 2026-11-21 09:58:20+00:00"),
        ({}, None, 1, f"{NO_RESULT}missing"),
        (None, None, 1, "File not found: "),
        (GOOD | {"began": 1795255100}, DAMAGED | {"began": "NOW"}, 1, "the restore drill failed: damaged pages"),
    ],
    ids=["stale", "missing", "without a file", "failed"],
)
def test_a_drill_without_a_good_result_of_its_own_fails(
    tmp_path: Path, before: dict[str, Any] | None, after: dict[str, Any] | None, code: int, message: str
) -> None:
    ended, output = play(tmp_path, before, after, code)
    assert ended != 0 and message in output, output


def test_the_report_is_of_this_drill(tmp_path: Path) -> None:
    ended, output = play(tmp_path, GOOD | {"began": 1795255100, "report": {}}, GOOD | {"began": "NOW"}, 0)
    assert ended == 0, output
    (kept,) = (tmp_path / "test/drill_postgresql").glob("*/drill.json")
    assert json.loads(kept.read_text()) == REPORT | {"host": "db", "ok": True}
