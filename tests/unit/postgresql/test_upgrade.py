"""The plan of an upgrade, and the faults that prevent it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.postgresql import PostgresqlError
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_upgrade import candidates, plan


def policy(versions: dict[str, str | None]) -> str:
    """The output of apt-cache policy."""
    return "".join(
        f"postgresql-{major}:\n  Installed: (none)\n  Candidate: {version or '(none)'}\n"
        for major, version in versions.items()
    )


SEEN: dict[str, Any] = {
    "majors": ["17"],
    "policy": policy({"18": "18.6-1", "17": "17.11-1"}),
    "installed": {"17": "17.11-1"},
    "used_mb": 1000,
    "free_mb": 5000,
}


@pytest.mark.parametrize(
    ("wanted", "more", "options", "action", "message"),
    [
        ("17", {}, {}, "none", "nothing: 17.11-1 is the newest"),
        ("17", {"installed": {"17": "17.10-1"}}, {}, "minor", "install 17.11-1 in place of 17.10-1"),
        ("17", {"policy": policy({"17": None})}, {}, "none", "nothing"),
        ("18", {}, {}, "major", "copy 1000 MB with pg_upgrade"),
        ("18", {"majors": ["15", "17"]}, {}, "major", "keep the data of version 17 for a rollback"),
        (
            "18",
            {"majors": ["17", "18"], "unfinished": True},
            {},
            "continue",
            "complete the upgrade from 17",
        ),
        (
            "18",
            {"majors": ["17", "18"], "installed": {"18": "18.5-1"}},
            {},
            "minor",
            "install 18.6-1 in place of 18.5-1",
        ),
        ("18", {"free_mb": 1000}, {}, "reject", "MB beside the old"),
        ("18", {"policy": policy({"18": None})}, {}, "reject", "no configured package archive has PostgreSQL 18"),
        ("18", {"policy": policy({"18": None})}, {"pgdg": True}, "major", "install PostgreSQL 18 from its own archive"),
        ("18", {"policy": "", "installed": {"18": "18.6-1"}}, {}, "major", "install PostgreSQL 18"),
        ("18", {}, {"backed_up": False}, "reject", "there is no backup"),
        ("18", {}, {"backed_up": False, "without_backup": True}, "major", "start version 18"),
        ("18", {"free_mb": 0}, {"standby": True}, "major", "rename the data directory of version 17"),
        ("16", {}, {}, "reject", "a downgrade to 16 is not possible"),
        ("18", {"majors": []}, {}, "reject", "there is no data"),
        ("18", {"majors": []}, {"standby": True}, "none", "copy the primary when it runs 18"),
        ("17", {"running": "17.10-1"}, {}, "minor", "install 17.11-1 in place of 17.10-1"),
        ("17", {"running": "17.11-1"}, {}, "none", "nothing"),
    ],
)
def test_every_case_has_its_plan(
    wanted: str, more: dict[str, Any], options: dict[str, bool], action: str, message: str
) -> None:
    found = plan(wanted, SEEN | more, **{"backed_up": True, **options})
    assert found["action"] == action
    assert message in "; ".join(found["steps"] + found["faults"])
    assert bool(found["faults"]) is (action == "reject")


@pytest.mark.parametrize(
    ("more", "version"),
    [
        ({"installed": {"17": "17.10-1"}}, "17.11-1"),
        # Installed by an interrupted run, from an archive that is not configured any more.
        ({"running": "17.10-1", "policy": ""}, "17.11-1"),
    ],
)
def test_a_minor_upgrade_has_the_package_version(more: dict[str, Any], version: str) -> None:
    found = plan("17", SEEN | more, backed_up=True)
    assert (found["action"], found["package_version"]) == ("minor", version)


def test_a_backup_comes_first_and_last() -> None:
    steps = plan("18", SEEN, backed_up=True)["steps"]
    assert steps[0] == "take a full backup and verify every object of it"
    assert "take a full backup" in steps[-2]
    assert "backup" not in " ".join(plan("18", SEEN, backed_up=False, without_backup=True)["steps"])


def test_an_unsupported_version_is_rejected() -> None:
    with pytest.raises(PostgresqlError, match="Set one of 15"):
        plan("9", SEEN, backed_up=True)


def test_apt_is_understood() -> None:
    policy = """\
postgresql-17:
  Installed: 17.10-0+deb13u1
  Candidate: 17.11-0+deb13u1
  Version table:
     17.11-0+deb13u1 500
postgresql-18:
  Installed: (none)
  Candidate: (none)
"""
    assert candidates(policy, ["16", "17", "18"]) == {"16": None, "17": "17.11-0+deb13u1", "18": None}
