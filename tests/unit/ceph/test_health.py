"""The health gate: a healthy cluster, and each unmet requirement."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health

MONITORS = ["h1", "h2", "h3"]


def check(code: str, severity: str = "HEALTH_WARN", muted: bool = False) -> dict[str, Any]:
    return {"code": code, "severity": severity, "summary": "a fault", "detail": ["a line"], "muted": muted}


def view(**changes: Any) -> dict[str, Any]:
    """A healthy cluster of three hosts."""
    return {
        "status": "HEALTH_OK",
        "checks": [],
        "monitors": MONITORS,
        "quorum": MONITORS,
        "leader": "h1",
        "manager": "h1.abcdef",
        "standbys": ["h2.ghijkl"],
        "placement_groups": {"active+clean": 95, "active+clean+scrubbing+deep": 2},
        "osds": {str(number): {"up": True, "in": True, "states": ["exists", "up"]} for number in range(3)},
        "flags": ["sortbitwise"],
        "release": "tentacle",
        "used": {"0": 0.1, "1": 0.2, "2": 0.3},
        "refusals": {},
    } | changes


def unmet(seen: dict[str, Any], **changes: Any) -> list[str]:
    wanted: dict[str, Any] = {"monitors": MONITORS, "managers": 2, "accepted": ["ACCEPTED"], "nearfull": 0.85}
    return ceph_health.unmet(seen, **(wanted | changes))


def test_a_healthy_cluster() -> None:
    assert unmet(view()) == []


def test_a_new_cluster_without_pools_is_healthy() -> None:
    assert unmet(view(placement_groups={})) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quorum": ["h1", "h2"]}, "h3 is not in the monitor quorum (h1, h2)"),
        ({"quorum": ["h1"]}, "h2, h3 are not in the monitor quorum (h1)"),
        ({"quorum": [*MONITORS, "h4"]}, "h4 is in the quorum but not expected"),
        ({"manager": ""}, "no manager is active"),
        ({"standbys": []}, "1 of 2 managers run, h1.abcdef is active"),
        ({"checks": [check("OSD_FULL", "HEALTH_ERR")]}, "HEALTH_ERR OSD_FULL: a fault"),
        ({"checks": [check("SLOW_OPS")]}, "HEALTH_WARN SLOW_OPS: a fault"),
        (
            {"placement_groups": {"active+clean": 90, "active+undersized+degraded": 6, "peering": 1}},
            "7 of 97 placement groups are not active+clean (6 active+undersized+degraded, 1 peering)",
        ),
        ({"osds": {"1": {"up": False, "in": True, "states": []}}}, "osd.1 is down"),
        ({"used": {"2": 0.85}}, "osd.2 is 85% full, the limit is 85%"),
        ({"refusals": {"osd.1": "unsafe to stop osd(s) at this time\n"}}, "osd.1 is not ok-to-stop: unsafe to stop"),
    ],
)
def test_an_unmet_requirement_is_one_message(changes: dict[str, Any], message: str) -> None:
    found = unmet(view(**changes))
    assert len(found) == 1
    assert found[0].startswith(message)


def test_accepted_and_muted_warnings_and_a_muted_error_pass() -> None:
    checks = [check("ACCEPTED"), check("SLOW_OPS", muted=True), check("OSD_FULL", "HEALTH_ERR", muted=True)]
    assert unmet(view(checks=checks)) == []


def test_an_accepted_error_is_still_an_error() -> None:
    assert unmet(view(checks=[check("ACCEPTED", "HEALTH_ERR")])) == ["HEALTH_ERR ACCEPTED: a fault"]


def test_an_osd_that_is_out_may_be_down() -> None:
    assert unmet(view(osds={"1": {"up": False, "in": False, "states": []}})) == []


def test_a_serving_cluster_need_not_be_clean() -> None:
    """With a host down: one monitor, one manager and one OSD are missing, every placement group is degraded."""
    degraded = view(
        quorum=["h1", "h2"],
        standbys=[],
        checks=[check("MON_DOWN"), check("OSD_DOWN")],
        placement_groups={"active+undersized+degraded": 97},
        osds={"2": {"up": False, "in": True, "states": []}},
    )
    assert len(unmet(degraded)) == 6
    assert unmet(degraded, clean=False) == []
    degraded["placement_groups"] = {"active+undersized+degraded": 96, "undersized+degraded+peered": 1}
    assert unmet(degraded, clean=False) == ["1 of 97 placement groups are not active (1 undersized+degraded+peered)"]


def test_the_detail_has_the_format_of_ceph() -> None:
    seen = view(status="HEALTH_WARN", checks=[check("A", "HEALTH_ERR"), check("B", muted=True)])
    assert ceph_health.detail(seen).splitlines() == [
        "HEALTH_WARN",
        "[ERR] A: a fault",
        "    a line",
        "(MUTED) [WARN] B: a fault",
        "    a line",
    ]


class Recorded:
    """Test double with recorded answers of a cluster of three hosts, the third one down."""

    def __init__(self, manager: bool = True) -> None:
        self.manager = manager

    def batch(self, commands: list[list[str]]) -> list[Any]:
        answers: dict[str, Any] = {
            "status": {"pgmap": {"pgs_by_state": [{"state_name": "active+clean", "count": 33}]}},
            "health detail": {
                "status": "HEALTH_WARN",
                "checks": {
                    "MON_DOWN": {
                        "severity": "HEALTH_WARN",
                        "summary": {"message": "1/3 mons down, quorum h1,h2", "count": 1},
                        "detail": [{"message": "mon.h3 (rank 2) is down (out of quorum)"}],
                        "muted": False,
                    }
                },
                "mutes": [],
            },
            "quorum_status": {
                "quorum_names": ["h1", "h2"],
                "quorum_leader_name": "h1",
                "monmap": {"mons": [{"name": name} for name in MONITORS]},
            },
            "mgr dump": {
                "available": self.manager,
                "active_name": "h1.abcdef",
                "standbys": [{"gid": 1, "name": "h2.ghijkl"}],
            },
            "osd dump": {
                "flags_set": ["sortbitwise", "noout"],
                "require_osd_release": "tentacle",
                "osds": [{"osd": 0, "up": 1, "in": 1, "state": ["exists", "up"]}],
            },
        }
        return [answers[" ".join(command)] for command in commands]

    def execute(self, commands: list[list[str]], json_wanted: bool, strict: bool) -> list[dict[str, Any]]:
        usage = {"nodes": [{"id": 0, "kb": 100, "utilization": 12.345678}, {"id": 1, "kb": 0, "utilization": 0}]}
        assert commands[1:] == [["osd", "ok-to-stop", "0"], ["mon", "ok-to-stop", "h1"]]
        return [
            {"code": 0, "output": json.dumps(usage), "message": ""},
            {"code": 16, "output": "", "message": "unsafe to stop osd(s)"},
            {"code": 0, "output": "", "message": "quorum should be preserved"},
        ]

    def parsed(self, args: list[str], output: str) -> Any:
        return json.loads(output)


def test_reading() -> None:
    seen = ceph_health.read(Recorded(), ["osd.0", "mon.h1"])  # type: ignore[arg-type]
    assert (seen["quorum"], seen["leader"]) == (["h1", "h2"], "h1")
    assert seen["checks"][0]["summary"] == "1/3 mons down, quorum h1,h2"
    assert seen["checks"][0]["detail"] == ["mon.h3 (rank 2) is down (out of quorum)"]
    assert seen["standbys"] == ["h2.ghijkl"]
    assert seen["placement_groups"] == {"active+clean": 33}
    assert seen["used"] == {"0": 0.1235}
    assert seen["refusals"] == {"osd.0": "unsafe to stop osd(s)"}
    assert seen["flags"] == ["noout", "sortbitwise"]


def test_without_a_manager_its_commands_are_not_run() -> None:
    seen = ceph_health.read(Recorded(manager=False), ["osd.0", "mon.h1"])  # type: ignore[arg-type]
    assert (seen["manager"], seen["used"], seen["refusals"]) == ("", {}, {})
