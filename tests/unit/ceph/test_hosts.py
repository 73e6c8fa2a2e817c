"""When an OSD may be destroyed, a host counts as lost, and a host may be drained."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_hosts

from tests.unit.ceph.test_health import view as health

UP = {"up": True, "in": True, "states": ["exists", "up"]}
DOWN = {"up": False, "in": True, "states": ["exists"]}


def osds(**changes: dict[str, Any]) -> dict[str, Any]:
    return {"0": UP, "1": UP, "2": UP} | {name.removeprefix("osd"): state for name, state in changes.items()}


def one(**changes: Any) -> dict[str, Any]:
    """osd.2; `osds` and `groups` are those of the cluster."""
    cluster = health(osds=changes.pop("osds", osds()), placement_groups=changes.pop("groups", {"active+clean": 97}))
    values = {"health": cluster, "host": "h3", "safe_to_destroy": False, "ok_to_stop": True, "message": "not safe"}
    return values | changes


@pytest.mark.parametrize(
    ("seen", "action", "reason"),
    [
        (one(safe_to_destroy=True), "destroy", "no placement group needs osd.2"),
        (one(), "destroy", "every placement group has all other copies without osd.2"),
        (one(ok_to_stop=False), "wait", "osd.2 is up and needed: not safe"),
        (
            one(groups={"active+clean": 90, "active+recovering": 7}),
            "wait",
            "osd.2 is up and needed: 7 active+recovering",
        ),
        (
            one(osds=osds(osd2=DOWN), groups={"active+undersized+degraded": 97}),
            "destroy",
            "every placement group is active without osd.2",
        ),
        (
            one(osds=osds(osd2=DOWN), groups={"active+undersized+degraded": 90, "active+recovery_wait+degraded": 7}),
            "wait",
            "placement groups are not recovered without osd.2: 7 active+recovery_wait+degraded",
        ),
        (
            one(osds=osds(osd2=DOWN), groups={"undersized+degraded+peered": 1}),
            "wait",
            "placement groups are not recovered without osd.2: 1 undersized+degraded+peered",
        ),
        (one(osds=osds(osd1=DOWN, osd2=DOWN)), "wait", "osd.1 is down as well"),
        (
            one(osds=osds(osd2={"up": False, "in": False, "states": ["destroyed", "exists"]})),
            "none",
            "osd.2 is already destroyed, its id is reserved",
        ),
    ],
)
def test_destroying_an_osd(seen: dict[str, Any], action: str, reason: str) -> None:
    assert ceph_hosts.plan_destroy(seen, 2) == (action, reason)


class Recorded:
    """Answers of 20.2.4 about a needed OSD: with --format json, safe-to-destroy always exits with 0."""

    def execute(self, commands: list[list[str]], strict: bool, json_wanted: bool = False) -> list[dict[str, Any]]:
        found = []
        for command in commands:
            if command[1] == "find":
                location = {
                    "osd": 2,
                    "osd_fsid": "u",
                    "host": "h3",
                    "crush_location": {"host": "h3", "root": "default"},
                }
                found.append({"code": 0, "output": json.dumps(location), "message": ""})
            elif command[1] == "safe-to-destroy" and not json_wanted:
                message = "OSD(s) 2 have 227 pgs currently mapped to them. "
                found.append({"code": errno.EBUSY, "output": "", "message": message})
            else:
                found.append({"code": 0, "output": "", "message": ""})
        return found

    def parsed(self, args: list[str], output: str) -> Any:
        return json.loads(output)


def test_reading_an_osd_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceph_hosts.ceph_health, "read", lambda cluster, stoppable: health())
    seen = ceph_hosts.read_osd(Recorded(), 2)  # type: ignore[arg-type]
    assert (seen["host"], seen["uuid"]) == ("h3", "u")
    assert (seen["safe_to_destroy"], seen["ok_to_stop"]) == (False, True)
    assert seen["message"] == "OSD(s) 2 have 227 pgs currently mapped to them."


def test_an_osd_that_does_not_exist() -> None:
    action, reason = ceph_hosts.plan_destroy(one(), 7)
    assert (action, reason) == ("refuse", "osd.7 does not exist; the cluster has osd.0, osd.1, osd.2")


def hosts(**changes: Any) -> dict[str, Any]:
    """Four hosts with an OSD each, monitors on the first three."""
    names = ["h1", "h2", "h3", "h4"]
    states = {str(number): UP for number in range(4)}
    return {
        "health": health(osds=states),
        "hosts": {name: {"address": "10.0.0.1", "labels": [], "offline": False} for name in names},
        "daemons": [{"name": f"osd.{n}", "kind": "osd", "host": name, "running": True} for n, name in enumerate(names)],
        "osds": {name: [f"osd.{number}"] for number, name in enumerate(names)},
        "copies": 3,
        "monitors": ["h1", "h2", "h3"],
    } | changes


def test_a_host_with_daemons_that_are_up_is_not_lost() -> None:
    assert ceph_hosts.lost_faults(hosts(), "h3") == [
        "h3: it is not lost, osd.2 is up.",
        "h3: it is not lost, its monitor is in the quorum.",
    ]
    assert ceph_hosts.lost_faults(hosts(), "h9") == ["h9: not a host of this cluster, which has h1, h2, h3, h4."]


def test_a_host_that_is_down_is_lost_while_the_others_have_quorum() -> None:
    states = {str(number): UP for number in range(4)} | {"2": DOWN}
    assert ceph_hosts.lost_faults(hosts(health=health(osds=states, quorum=["h1", "h2"])), "h3") == []
    alone = hosts(health=health(osds=states, quorum=["h1"]))
    assert ceph_hosts.lost_faults(alone, "h3") == ["h3: without its monitor there is no majority (quorum: h1)."]


def test_draining_needs_hosts_for_the_data_and_for_the_monitor() -> None:
    assert ceph_hosts.drain_faults(hosts(), "h4", ["h1", "h2", "h3"]) == []
    assert ceph_hosts.drain_faults(hosts(), "h9", ["h1", "h2", "h3"]) == []
    three = hosts(osds={name: ["osd.0"] for name in ("h1", "h2", "h3")})
    found = ceph_hosts.drain_faults(three, "h3", ["h1", "h2"])
    assert [fault.split(" would")[0] for fault in found] == [
        "h3: cannot be drained, 2 hosts with OSDs",
        "h3: has one of three monitors, and no other host is left for it. Add a host first (add_ceph_host.yml).",
    ]
    seen = hosts()
    seen["hosts"]["h2"]["offline"] = True
    assert ceph_hosts.drain_faults(seen, "h4", ["h1", "h2", "h3"]) == [
        "h2: offline. Start the host first, or replace it."
    ]


def test_remaining_daemons_of_a_host() -> None:
    assert ceph_hosts.remaining_daemons(hosts(), "h4") == ["osd.3"]
    assert ceph_hosts.remaining_daemons(hosts(daemons=[]), "h4") == []
