"""Whether a cluster is founded, kept or left alone: every doubt ends the run."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_founding import founding

FSID = "391c49a8-b2db-49af-ae16-e787041d899e"
OTHER = "11111111-b2db-49af-ae16-e787041d899e"
MEMBERS = ["a", "b", "c"]
SILENT = {"there": False, "deployed": False, "state": "", "quorum": [], "monitors": []}


def host(*daemons: str, state: str = "", folder: bool = False, deployed: bool = True) -> dict[str, Any]:
    monitor = any(daemon.startswith("mon.") for daemon in daemons)
    return {
        "clusters": {FSID: list(daemons)} if daemons or folder else {},
        "monitor": SILENT | {"there": monitor, "deployed": monitor and deployed, "state": state},
    }


def hosts(**given: Any) -> dict[str, Any]:
    return {name: given.get(name, host()) for name in MEMBERS}


def view(**given: Any) -> dict[str, Any]:
    return {"founded": True, "osds": 3, "monitors": MEMBERS} | given


def test_nothing_anywhere_is_founded_on_the_first_member() -> None:
    plan = founding(hosts(), FSID, MEMBERS)
    assert (plan["found"], plan["voice"], plan["clean"], plan["faults"]) == (True, "a", [], [])


def test_any_monitor_of_the_quorum_speaks_for_the_cluster() -> None:
    states = hosts(a=host("mon.a"), b=host("mon.b", "osd.1", state="peon"), c=host("mon.c", state="leader"))
    plan = founding(states, FSID, MEMBERS, view())
    assert (plan["answers"], plan["voice"], plan["found"], plan["faults"]) == (True, "b", False, [])


def test_a_founding_that_died_is_removed_and_begun_again() -> None:
    states = hosts(a=host("mon.a", "mgr.a.x", state="leader"))
    plan = founding(states, FSID, MEMBERS, view(founded=False, osds=0, monitors=["a"]))
    assert (plan["found"], plan["clean"], plan["answers"], plan["faults"]) == (True, ["a"], False, [])


@pytest.mark.parametrize(
    "sign",
    [{"founded": True, "osds": 0, "monitors": ["a"]}, {"founded": False, "osds": 1, "monitors": ["a"]},
     {"founded": False, "osds": 0, "monitors": ["a", "b"]}],
)  # fmt: skip
def test_a_cluster_that_may_hold_something_is_never_removed(sign: dict[str, Any]) -> None:
    plan = founding(hosts(a=host("mon.a", state="leader")), FSID, MEMBERS, view(**sign))
    assert (plan["found"], plan["clean"], plan["answers"]) == (False, [], True)


def test_a_cluster_with_daemons_elsewhere_is_never_removed() -> None:
    states = hosts(a=host("mon.a", state="leader"), b=host("crash.b"))
    plan = founding(states, FSID, MEMBERS, view(founded=False, osds=0, monitors=["a"]))
    assert (plan["found"], plan["clean"]) == (False, [])


@pytest.mark.parametrize("remains", [host(folder=True), host("mon.a", deployed=False)])
def test_folders_of_a_monitor_that_never_ran_are_removed(remains: dict[str, Any]) -> None:
    plan = founding(hosts(a=remains), FSID, MEMBERS)
    assert (plan["found"], plan["clean"], plan["faults"]) == (True, ["a"], [])


def test_monitors_without_a_majority_are_woken_and_never_replaced() -> None:
    plan = founding(hosts(a=host("mon.a"), b=host("mon.b", state="probing"), c=host("mon.c")), FSID, MEMBERS)
    assert plan["wake"] == MEMBERS
    assert (plan["found"], plan["clean"]) == (False, [])
    assert "no majority (a: its monitor does not run; b: probing; c: its monitor does not run)" in plan["faults"][0]


@pytest.mark.parametrize("disks", [[], ["b"]])
def test_data_without_monitors_is_left_alone(disks: list[str]) -> None:
    states = hosts(b=host("osd.1")) if not disks else hosts()
    plan = founding(states, FSID, MEMBERS, disks_in_use=disks)
    assert (plan["found"], plan["clean"]) == (False, [])
    assert "b holds data of it" in plan["faults"][0]


def test_no_second_cluster_beside_hosts_that_nobody_looked_at() -> None:
    states = hosts()
    del states["c"]
    plan = founding(states, FSID, MEMBERS)
    assert not plan["found"]
    assert "c was not part of it" in plan["faults"][0]


def test_a_host_of_another_cluster_stops_the_run() -> None:
    states = hosts()
    states["b"]["clusters"] = {OTHER: ["osd.0"]}
    assert (
        f"b holds osd.0 of the cluster {OTHER}, but ceph_fsid is {FSID}" in founding(states, FSID, MEMBERS)["faults"][0]
    )
    states["b"]["clusters"] = {OTHER: []}
    assert founding(states, FSID, MEMBERS)["faults"] == []
