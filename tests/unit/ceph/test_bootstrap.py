"""When a cluster is bootstrapped, reused or left alone: any doubt is a fault."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_bootstrap import bootstrap_plan

FSID = "391c49a8-b2db-49af-ae16-e787041d899e"
OTHER = "11111111-b2db-49af-ae16-e787041d899e"
MEMBERS = ["a", "b", "c"]
NO_MONITOR = {"exists": False, "deployed": False, "state": "", "quorum": [], "monitors": []}


def host(*daemons: str, state: str = "", folder: bool = False, deployed: bool = True) -> dict[str, Any]:
    monitor = any(daemon.startswith("mon.") for daemon in daemons)
    return {
        "clusters": {FSID: list(daemons)} if daemons or folder else {},
        "monitor": NO_MONITOR | {"exists": monitor, "deployed": monitor and deployed, "state": state},
    }


def hosts(**given: Any) -> dict[str, Any]:
    return {name: given.get(name, host()) for name in MEMBERS}


def status(**given: Any) -> dict[str, Any]:
    return {"bootstrapped": True, "osds": 3, "monitors": MEMBERS} | given


def test_bare_hosts_are_bootstrapped_on_the_first_member() -> None:
    plan = bootstrap_plan(hosts(), FSID, MEMBERS)
    assert (plan["bootstrap_needed"], plan["admin_host"], plan["hosts_to_clean"], plan["faults"]) == (True, "a", [], [])


def test_the_admin_host_is_the_first_member_in_the_quorum() -> None:
    states = hosts(a=host("mon.a"), b=host("mon.b", "osd.1", state="peon"), c=host("mon.c", state="leader"))
    plan = bootstrap_plan(states, FSID, MEMBERS, status())
    assert (plan["reachable"], plan["admin_host"], plan["bootstrap_needed"], plan["faults"]) == (True, "b", False, [])


def test_an_interrupted_bootstrap_is_removed_and_repeated() -> None:
    states = hosts(a=host("mon.a", "mgr.a.x", state="leader"))
    plan = bootstrap_plan(states, FSID, MEMBERS, status(bootstrapped=False, osds=0, monitors=["a"]))
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"], plan["reachable"], plan["faults"]) == (
        True,
        ["a"],
        False,
        [],
    )


@pytest.mark.parametrize(
    "sign",
    [{"bootstrapped": True, "osds": 0, "monitors": ["a"]}, {"bootstrapped": False, "osds": 1, "monitors": ["a"]},
     {"bootstrapped": False, "osds": 0, "monitors": ["a", "b"]}],
)  # fmt: skip
def test_a_cluster_that_may_hold_data_is_never_removed(sign: dict[str, Any]) -> None:
    plan = bootstrap_plan(hosts(a=host("mon.a", state="leader")), FSID, MEMBERS, status(**sign))
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"], plan["reachable"]) == (False, [], True)


def test_a_cluster_with_daemons_elsewhere_is_never_removed() -> None:
    states = hosts(a=host("mon.a", state="leader"), b=host("crash.b"))
    plan = bootstrap_plan(states, FSID, MEMBERS, status(bootstrapped=False, osds=0, monitors=["a"]))
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"]) == (False, [])


@pytest.mark.parametrize("remains", [host(folder=True), host("mon.a", deployed=False)])
def test_folders_of_a_monitor_that_never_ran_are_removed(remains: dict[str, Any]) -> None:
    plan = bootstrap_plan(hosts(a=remains), FSID, MEMBERS)
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"], plan["faults"]) == (True, ["a"], [])


def test_monitors_without_quorum_are_started_and_never_replaced() -> None:
    plan = bootstrap_plan(hosts(a=host("mon.a"), b=host("mon.b", state="probing"), c=host("mon.c")), FSID, MEMBERS)
    assert plan["monitors_to_start"] == MEMBERS
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"]) == (False, [])
    assert "no quorum (a: monitor down; b: probing; c: monitor down)" in plan["faults"][0]


@pytest.mark.parametrize("disks", [[], ["b"]])
def test_data_without_monitors_is_left_alone(disks: list[str]) -> None:
    states = hosts(b=host("osd.1")) if not disks else hosts()
    plan = bootstrap_plan(states, FSID, MEMBERS, disks_in_use=disks)
    assert (plan["bootstrap_needed"], plan["hosts_to_clean"]) == (False, [])
    assert "b holds data of it" in plan["faults"][0]


def test_no_bootstrap_while_a_member_is_left_out() -> None:
    states = hosts()
    del states["c"]
    plan = bootstrap_plan(states, FSID, MEMBERS)
    assert not plan["bootstrap_needed"]
    assert "c: not in this run" in plan["faults"][0]


def test_a_host_with_data_of_another_cluster_is_a_fault() -> None:
    states = hosts()
    states["b"]["clusters"] = {OTHER: ["osd.0"]}
    assert (
        f"b: holds osd.0 of the cluster {OTHER}, but ceph_fsid is {FSID}"
        in bootstrap_plan(states, FSID, MEMBERS)["faults"][0]
    )
    states["b"]["clusters"] = {OTHER: []}
    assert bootstrap_plan(states, FSID, MEMBERS)["faults"] == []
