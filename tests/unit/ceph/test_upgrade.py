"""Preconditions, next action and progress of an upgrade."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_upgrade

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FLOORS = ["20.2.4", "21.2.0"]
IMAGE = f"quay.io/ceph/ceph@{NEW}"


def view(**changes: Any) -> dict[str, Any]:
    """A cluster that runs the old image."""
    return {
        "versions": {"mon": ["20.2.4"], "osd": ["20.2.4"], "overall": ["20.2.4"]},
        "release": "tentacle",
        "standbys": 1,
        "in_progress": False,
        "paused": False,
        "target": "",
        "progress": "",
        "message": "",
        "daemons": {"mon.h1": [OLD], "mgr.h1.a": [OLD], "osd.0": [OLD]},
    } | changes


def going(**changes: Any) -> dict[str, Any]:
    daemons = {"mon.h1": [OLD], "mgr.h1.a": [NEW], "osd.0": [OLD]}
    return view(in_progress=True, target=IMAGE, progress="1/3 daemons upgraded", daemons=daemons, **changes)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("20.2.4", (20, 2, 4)),
        ("ceph version 20.2.4 (abc) tentacle (stable - RelWithDebInfo)", (20, 2, 4)),
        ("ceph version 21.2.10-44-gabc (abc) umbrella (stable)", (21, 2, 10)),
    ],
)
def test_versions(text: str, version: tuple[int, int, int]) -> None:
    assert ceph_upgrade.parse_version(text) == version


def test_a_tag_is_no_version() -> None:
    with pytest.raises(ValueError, match="'latest': not a version of Ceph"):
        ceph_upgrade.parse_version("latest")


@pytest.mark.parametrize(
    ("seen", "version", "message"),
    [
        (
            view(),
            "20.2.3",
            "op_upgrade_ceph_version: 20.2.3 lacks the fix of CVE-2025-30156. Choose an image of 20.2.4 or 21.2.0",
        ),
        (view(), "19.2.9", "op_upgrade_ceph_version: 19.2.9 lacks the fix"),
        (
            view(versions={"mon": ["21.2.0"]}),
            "20.2.5",
            "op_upgrade_ceph_version: 20.2.5 is older than the running 21.2.0",
        ),
        (
            view(versions={"mon": ["18.2.7"]}),
            "21.2.0",
            "op_upgrade_ceph_version: 21.2.0 is more than 2 major releases newer than the running 18.2.7",
        ),
        (view(standbys=0), "20.2.5", "No standby manager"),
        (
            view(in_progress=True, target=f"quay.io/ceph/ceph@{OLD}"),
            "20.2.5",
            f"op_upgrade_ceph_image: an upgrade to quay.io/ceph/ceph@{OLD} is in progress",
        ),
    ],
)
def test_faults(seen: dict[str, Any], version: str, message: str) -> None:
    found = ceph_upgrade.faults(seen, IMAGE, version, FLOORS)
    assert [fault for fault in found if fault.startswith(message)]


def test_too_many_majors_name_the_intermediate_release() -> None:
    found = ceph_upgrade.faults(view(versions={"osd": ["18.2.7"]}), IMAGE, "21.2.0", FLOORS)
    assert found[0].endswith("Upgrade to the newest 20 (tentacle) first.")


def test_mixed_versions_of_an_interrupted_run_are_no_fault() -> None:
    seen = view(versions={"mon": ["20.2.4", "20.2.5"], "osd": ["20.2.4"]})
    assert ceph_upgrade.faults(seen, IMAGE, "20.2.5", FLOORS) == []


@pytest.mark.parametrize(
    ("seen", "action", "halted"),
    [
        (view(), "start", ""),
        (going(), "follow", ""),
        (going(paused=True, message="Upgrade paused"), "resume", "paused"),
        (going(paused=True, message="Error: UPGRADE_FAILED_PULL: x"), "resume", "Error: UPGRADE_FAILED_PULL: x"),
        (view(daemons={"mon.h1": [NEW], "osd.0": [NEW, OLD]}), "none", ""),
        (view(daemons={"mon.h1": [NEW], "osd.0": []}), "start", ""),
    ],
)
def test_next_action(seen: dict[str, Any], action: str, halted: str) -> None:
    assert (ceph_upgrade.action(seen, IMAGE), ceph_upgrade.halted(seen)) == (action, halted)


def test_progress_is_one_line() -> None:
    assert ceph_upgrade.summary(view(), IMAGE) == "0 of 3 daemons run the image"
    seen = going(message="Currently upgrading mon daemons")
    assert ceph_upgrade.summary(seen, IMAGE) == "1 of 3 daemons run the image; Currently upgrading mon daemons"
    assert ceph_upgrade.summary(going(), IMAGE) == "1 of 3 daemons run the image; 1/3 daemons upgraded"


def test_complete_is_every_daemon_every_version_and_the_release() -> None:
    done = view(daemons={"mon.h1": [NEW], "osd.0": [NEW]}, versions={"mon": ["20.2.5"], "osd": ["20.2.5"]})
    assert ceph_upgrade.unfinished(done, IMAGE, "20.2.5") == []
    done["release"], done["versions"]["osd"] = "squid", ["20.2.4", "20.2.5"]
    done["daemons"]["osd.0"] = [OLD]
    assert ceph_upgrade.unfinished(done, IMAGE, "20.2.5") == [
        f"osd.0 do not run {IMAGE}",
        "osd runs 20.2.4, 20.2.5, not 20.2.5",
        "require_osd_release is squid, not tentacle",
    ]


class Recorded:
    def __init__(self, status: str) -> None:
        self.status = status

    def batch(self, commands: list[list[str]]) -> list[Any]:
        version = "ceph version 20.2.4 (abc) tentacle (stable)"
        answers: dict[str, Any] = {
            "versions": {"mon": {version: 3}, "mds": {}, "overall": {version: 3}},
            "osd dump": {"require_osd_release": "tentacle"},
            "mgr dump": {"standbys": [{}]},
        }
        return [answers[" ".join(command)] for command in commands]

    def execute(self, commands: list[list[str]], json_wanted: bool) -> list[dict[str, Any]]:
        daemons = [
            {
                "daemon_type": "mon",
                "daemon_id": "h1",
                "container_image_digests": [f"quay.io/ceph/ceph@{OLD}", f"mirror/ceph/ceph@{OLD}"],
            },
            {"daemon_type": "osd", "daemon_id": "0"},
            {"daemon_type": "node-exporter", "daemon_id": "h1"},
        ]
        return [{"code": 0, "output": self.status}, {"code": 0, "output": json.dumps(daemons)}]

    def parsed(self, args: list[str], output: str) -> Any:
        return json.loads(output)


def test_reading_without_an_upgrade() -> None:
    seen = ceph_upgrade.read(Recorded("There are no upgrades in progress currently.\n"))  # type: ignore[arg-type]
    assert seen["versions"] == {"mon": ["20.2.4"], "overall": ["20.2.4"]}
    assert seen["daemons"] == {"mon.h1": [OLD], "osd.0": []}
    assert (seen["target"], seen["standbys"], seen["in_progress"]) == ("", 1, False)


def test_reading_an_upgrade_in_progress() -> None:
    status = {
        "target_image": IMAGE,
        "in_progress": True,
        "which": "Upgrading all daemon types on all hosts",
        "services_complete": ["mgr"],
        "progress": "2/13 daemons upgraded",
        "message": "Currently upgrading mon daemons",
        "is_paused": False,
    }
    seen = ceph_upgrade.read(Recorded(json.dumps(status)))  # type: ignore[arg-type]
    assert (seen["in_progress"], seen["paused"], seen["target"]) == (True, False, IMAGE)
    assert seen["progress"] == "2/13 daemons upgraded"
