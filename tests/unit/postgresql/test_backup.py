"""What pgBackRest's words mean, which ends with 0 whatever it found: its answers as version 2.55 gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "roles/postgresql/files/usr/local/lib/slipway/postgresql-backup"
_spec = spec_from_loader("postgresql_backup", SourceFileLoader("postgresql_backup", str(SCRIPT)))
assert _spec is not None and _spec.loader is not None
backup = module_from_spec(_spec)
_spec.loader.exec_module(backup)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TAKEN = {
    "label": "20261121-095838F",
    "type": "full",
    "database": {"repo-key": 1},
    "timestamp": {"start": 1795255118, "stop": 1795255127},
    "error": False,
}
WHOLE = """stanza: main
status: ok
  archiveId: 17-1, total WAL checked: 7, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-095838F, status: valid, total files checked: 1264, total valid files: 1264
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""
DAMAGED = """stanza: main
status: error
  archiveId: 17-1, total WAL checked: 7, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-095838F, status: invalid, total files checked: 1264, total valid files: 1263
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
"""


def info(code: int, message: str, *backups: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": "main",
            "status": {"code": code, "message": message},
            "repo": [{"key": 1, "status": {"code": code, "message": message}}],
            "backup": list(backups),
        }
    ]


@pytest.mark.parametrize(
    ("said", "state", "faults"),
    [
        ([], "absent", []),
        (info(1, "missing stanza path"), "absent", []),
        (info(3, "missing stanza data"), "absent", []),
        (info(2, "no valid backups"), "empty", []),
        (info(0, "ok", TAKEN), "ok", []),
        (info(99, "other"), "broken", ["repository 1: other"]),
        (info(0, "ok", TAKEN | {"error": True}), "broken", ["backup 20261121-095838F has damaged pages"]),
    ],
)
def test_what_a_repository_is(said: list[dict[str, Any]], state: str, faults: list[str]) -> None:
    judged = backup.judge(said)
    assert (judged["state"], judged["faults"]) == (state, faults)


def test_one_repository_of_two_that_is_empty_is_filled() -> None:
    said = info(4, "different across repos", TAKEN)
    said[0]["repo"] = [
        {"key": 1, "status": {"code": 0, "message": "ok"}},
        {"key": 2, "status": {"code": 2, "message": "no valid backups"}},
    ]
    assert backup.judge(said)["state"] == "empty"


def test_a_whole_repository_has_no_faults() -> None:
    assert backup.faults_of_verify(WHOLE) == []


def test_damage_is_named() -> None:
    found = "; ".join(backup.faults_of_verify(DAMAGED))
    assert "status: error" in found and "20261121-095838F, status: invalid" in found and "checksum invalid: 1" in found


def test_silence_is_no_proof() -> None:
    assert backup.faults_of_verify("") == ["it does not say that all is well"]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("latest", ["--type=default"]),
        ("name:before-release", ["--type=name", "--target=before-release", "--target-action=promote"]),
        (
            "2026-11-21 12:30:00+02:00",
            ["--type=time", "--target=2026-11-21 10:30:00.000000+00", "--target-action=promote"],
        ),
    ],
)
def test_targets(target: str, options: list[str]) -> None:
    assert backup.target_options(target, backup.judge(info(0, "ok", TAKEN))["backups"], NOW) == options


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("yesterday", "is no target; write latest, a time with its zone"),
        ("2026-11-21 10:30:00", "has no zone"),
        ("2026-11-21 09:00:00+00:00", "the oldest backup ended at 2026-11-21 09:58:47"),
        ("2026-11-22 09:00:00+00:00", "it is 2026-11-21 12:00:00"),
    ],
)
def test_targets_that_cannot_be_reached(target: str, says: str) -> None:
    with pytest.raises(backup.Fault, match=says):
        backup.target_options(target, backup.judge(info(0, "ok", TAKEN))["backups"], NOW)


def test_an_empty_repository_has_no_target() -> None:
    with pytest.raises(backup.Fault, match="holds no backup"):
        backup.target_options("latest", [], NOW)
