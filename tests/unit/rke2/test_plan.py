"""The plan for results of rke2_state."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import rke2_plan

OLD, NEW = "v1.36.2+rke2r1", "v1.36.3+rke2r1"
SERVERS, AGENTS = ["s1", "s2", "s3"], ["a1"]


def node(version: str = NEW, **changes: Any) -> dict[str, Any]:
    return {
        "ready": True,
        "version": version,
        "unschedulable": False,
        "cordoned_by_role": False,
        "etcd_voter": None,
        "addresses": [],
    } | changes


def member(name: str, **changes: Any) -> dict[str, Any]:
    return {"id": name, "name": f"{name}-0123abcd", "learner": False, "client_urls": [], "answers": True} | changes


def api(nodes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"ready": True, "nodes": nodes, "authority_digest": "d", "error": None} | changes


def state(name: str, **changes: Any) -> dict[str, Any]:
    """A converged node of a healthy cluster."""
    server = name.startswith("s")
    return {
        "type": "server" if server else "agent",
        "node_name": name,
        "desired_version": NEW,
        "installed_version": NEW,
        "service": {"found": True, "state": "active", "enabled": True, "started_at": 1.0, "restarts": 0},
        "has_data": True,
        "token_digest": "t" if server else "",
        "immutable_settings": {"cni": "canal", "service-cidr": "10.43.0.0/16"},
        "different_files": [],
        "stale_files": [],
        "different_sysctls": [],
        "missing_users": [],
        "api": api({other: node() for other in SERVERS + AGENTS}) if server else None,
        "etcd": {"cluster_id": "1", "members": [member(s) for s in SERVERS], "alarms": [], "error": None}
        if server
        else None,
        "ingress_certificate": {"pem": "", "digest": "x"} if server else None,
    } | changes


def new_host(name: str) -> dict[str, Any]:
    service = {"found": False, "state": "inactive", "enabled": False, "started_at": 0.0, "restarts": 0}
    return state(
        name, has_data=False, installed_version=None, service=service, api=None, etcd=None, ingress_certificate=None
    )


def healthy_cluster() -> dict[str, Any]:
    return {name: state(name) for name in SERVERS + AGENTS}


def with_nodes(states: dict[str, Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    """Every server's API lists these nodes."""
    for name in SERVERS:
        if states[name]["api"]:
            states[name]["api"]["nodes"] |= nodes
    return states


def plan_of(states: dict[str, Any], version: str = NEW) -> dict[str, Any]:
    return rke2_plan.plan(states, version=version, servers=SERVERS, agents=AGENTS)


def test_a_cluster_is_converged_when_every_server_reports_it_healthy() -> None:
    assert plan_of(healthy_cluster())["converged"]
    assert not plan_of(healthy_cluster(), "v1.36.4+rke2r1")["converged"]
    for name in SERVERS:
        blind = healthy_cluster()
        blind[name]["api"]["error"] = "refused"
        unready = healthy_cluster()
        unready[name]["api"]["nodes"][AGENTS[0]]["ready"] = False
        assert not plan_of(blind)["converged"] and not plan_of(unready)["converged"]
        assert not plan_of({other: state for other, state in healthy_cluster().items() if other != name})["converged"]


def test_nothing_is_restarted_under_an_alarm_of_etcd() -> None:
    states = healthy_cluster()
    for name in SERVERS:  # every member lists all alarms
        states[name]["etcd"]["alarms"] = [{"member": "s1-0123abcd", "alarm": "NOSPACE"}]
    states["s2"]["stale_files"] = ["/etc/rancher/rke2/config.yaml"]
    plan = plan_of(states)
    assert plan["hosts"]["s2"]["action"] == "restart"
    assert [fault for fault in plan["faults"] if "s1-0123abcd raised the alarm NOSPACE" in fault] == plan["faults"]
    assert len(plan["faults"]) == 1


def actions(plan: dict[str, Any]) -> dict[str, str]:
    return {name: host["action"] for name, host in plan["hosts"].items()}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1.36.2+rke2r1", "v1.36.3+rke2r1"),
        ("v1.36.3+rke2r1", "v1.36.3+rke2r2"),
        ("v1.36.3-rc1+rke2r1", "v1.36.3+rke2r1"),
        ("v1.9.0+rke2r1", "v1.10.0+rke2r1"),
    ],
)
def test_versions_are_ordered_by_number(older: str, newer: str) -> None:
    assert rke2_plan.parse_version(older) < rke2_plan.parse_version(newer)


@pytest.mark.parametrize("text", ["1.36.3+rke2r1", "v1.36", "latest", "v1.36.3+k3s1"])
def test_a_version_is_written_in_full(text: str) -> None:
    plan = plan_of(healthy_cluster(), text)
    assert plan["faults"] == [f"rke2_version: {text!r} is not an RKE2 version. Set it in full, like v1.36.3+rke2r1."]


@pytest.mark.parametrize(
    ("running", "desired", "word"),
    [
        (NEW, OLD, "cannot be downgraded"),
        ("v1.34.9+rke2r1", NEW, "skips a minor version"),
        ("v1.35.7+rke2r1", NEW, None),
        (OLD, NEW, None),
    ],
)
def test_upgrade_paths(running: str, desired: str, word: str | None) -> None:
    fault = rke2_plan.version_fault("s1", running, desired)
    assert (fault is None) if word is None else (fault is not None and word in fault)


def test_a_converged_cluster_needs_no_action() -> None:
    plan = plan_of(healthy_cluster())
    assert plan["faults"] == []
    assert set(actions(plan).values()) == {"none"}
    assert plan["snapshot_host"] is None


def test_the_first_of_new_servers_bootstraps() -> None:
    plan = plan_of({name: new_host(name) for name in SERVERS + AGENTS})
    assert actions(plan) == {"s1": "bootstrap", "s2": "join", "s3": "join", "a1": "join"}
    assert plan["hosts"]["s3"]["status_host"] == "s1"
    assert plan["hosts"]["s3"]["peers"] == ["s1", "s2"]
    assert plan["hosts"]["a1"]["peers"] == SERVERS


def test_no_bootstrap_while_a_server_is_unread() -> None:
    plan = plan_of({"s1": new_host("s1"), "s2": new_host("s2")})
    assert plan["bootstrap_host"] is None
    assert plan["faults"][0].startswith("s3: not read in this run")


def test_the_other_servers_join_a_bootstrapped_cluster() -> None:
    states = {name: new_host(name) for name in SERVERS + AGENTS}
    states["s1"] = state("s1", api=api({"s1": node()}))
    states["s1"]["etcd"]["members"] = [member("s1")]
    plan = plan_of(states)
    assert plan["faults"] == []
    assert actions(plan) == {"s1": "none", "s2": "join", "s3": "join", "a1": "join"}
    assert plan["hosts"]["s2"]["peers"] == ["s1"]
    assert plan["hosts"]["s3"]["peers"] == ["s1", "s2"]


def test_a_first_server_that_lost_its_data_never_bootstraps_a_second_cluster() -> None:
    states = healthy_cluster() | {"s1": new_host("s1")}
    for name in ("s2", "s3"):
        del states[name]["api"]["nodes"]["s1"]
        states[name]["etcd"]["members"] = [member("s2"), member("s3")]
    plan = plan_of(states)
    assert plan["faults"] == []
    assert actions(plan)["s1"] == "join"
    assert plan["hosts"]["s1"]["peers"] == ["s2", "s3"]


@pytest.mark.parametrize("name", ["s1", "s3", "a1"])
def test_a_rebuilt_host_that_the_cluster_still_lists_is_a_fault(name: str) -> None:
    plan = plan_of(healthy_cluster() | {name: new_host(name)})
    assert len(plan["faults"]) == 1
    assert plan["faults"][0].startswith(f"{name}: holds no RKE2 data")
    assert f"kubectl delete node {name}" in plan["faults"][0]


def test_a_newer_version_restarts_what_runs_the_old_one() -> None:
    states = with_nodes(healthy_cluster(), s2=node(OLD), a1=node(OLD))
    plan = plan_of(states)
    assert actions(plan) == {"s1": "none", "s2": "restart", "s3": "none", "a1": "restart"}
    assert plan["hosts"]["s2"]["reasons"] == [f"runs {OLD}, desired is {NEW}"]
    assert plan["snapshot_host"] == "s1"


def test_the_version_on_disk_decides_nothing() -> None:
    states = healthy_cluster()
    states["s1"]["installed_version"] = OLD
    assert actions(plan_of(states))["s1"] == "none"


def test_a_changed_file_restarts() -> None:
    states = healthy_cluster()
    states["s3"]["stale_files"] = ["/etc/rancher/rke2/config.yaml"]
    plan = plan_of(states)
    assert actions(plan)["s3"] == "restart"
    assert plan["hosts"]["s3"]["reasons"] == ["started before a change of /etc/rancher/rke2/config.yaml"]


def test_agents_alone_need_no_snapshot() -> None:
    assert plan_of(with_nodes(healthy_cluster(), a1=node(OLD)))["snapshot_host"] is None


def test_the_roles_cordon_is_lifted_and_an_operators_is_not() -> None:
    states = with_nodes(
        healthy_cluster(), s1=node(unschedulable=True, cordoned_by_role=True), s2=node(unschedulable=True)
    )
    plan = plan_of(states)
    assert actions(plan)["s1"] == "resume"
    assert actions(plan)["s2"] == "none"
    assert plan["hosts"]["s2"]["cordoned"] is True


def test_two_clusters_are_a_fault() -> None:
    states = healthy_cluster()
    states["s2"]["etcd"]["cluster_id"] = "2"
    assert "2 different etcd clusters" in plan_of(states)["faults"][0]


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "none"),
        ({"service": {"state": "inactive"}}, "start"),
        ({"service": {"state": "failed"}}, "start"),
        ({"service": {"state": "activating"}}, "wait"),
        ({"service": {"state": "activating"}, "stale_files": ["x"]}, "restart"),
        ({"service": {"state": "failed"}, "installed_version": OLD}, "restart"),
        ({"api": {"error": "refused"}}, "wait"),
        ({"has_data": False, "service": {"state": "inactive"}}, "none"),
    ],
)
def test_servers_that_are_down_are_started_before_the_plan(changes: dict[str, Any], action: str) -> None:
    assert rke2_plan.recovery_action(state("s1") | changes) == action


def test_agents_are_never_started_before_the_servers() -> None:
    assert rke2_plan.recovery_action(state("a1") | {"service": {"state": "inactive"}}) == "none"


VIEW = {
    "api": api({"s1": node(), "s2": node()}),
    "etcd": {"members": [member("s1"), member("s2")], "alarms": [], "error": None},
}


@pytest.mark.parametrize(
    ("api_changes", "etcd_changes", "sentence"),
    [
        ({"error": "refused"}, {}, "the API does not answer (refused)"),
        ({"ready": False}, {}, "the API server's /readyz is not ok"),
        ({"nodes": {"s1": node()}}, {}, "node s2 is not registered"),
        ({"nodes": {"s1": node(), "s2": node(ready=False)}}, {}, "node s2 is not Ready"),
        ({"nodes": {"s1": node(), "s2": node(OLD)}}, {}, f"node s2 runs {OLD}, not {NEW}"),
        ({"nodes": {"s1": node(), "s2": node(etcd_voter=False)}}, {}, "node s2 has the condition EtcdIsVoter=False"),
        ({}, {"error": "timed out"}, "etcd does not answer (timed out)"),
        (
            {},
            {"alarms": [{"member": "s2-0123abcd", "alarm": "NOSPACE"}]},
            "etcd member s2-0123abcd raised the alarm NOSPACE and rejects every write. "
            "Free its space and disarm the alarm (docs/runbooks/upgrade_rke2.md, Alarms of etcd)",
        ),
        ({}, {"members": [member("s1")]}, "s2 is not a member of etcd"),
        ({}, {"members": [member("s1"), member("s2", answers=False)]}, "etcd member s2-0123abcd does not answer"),
        (
            {},
            {"members": [member("s1"), member("s2"), member("s9", learner=True)]},
            "etcd member s9-0123abcd is still a learner",
        ),
    ],
)
def test_unmet_conditions_of_a_gate(api_changes: dict[str, Any], etcd_changes: dict[str, Any], sentence: str) -> None:
    view = {"api": VIEW["api"] | api_changes, "etcd": VIEW["etcd"] | etcd_changes}
    assert rke2_plan.unmet(view, nodes=["s1", "s2"], version=NEW, members=["s1", "s2"]) == [sentence]


def test_a_gate_passes() -> None:
    assert rke2_plan.unmet(VIEW, nodes=["s1", "s2"], version=NEW, members=["s1", "s2"]) == []


def test_members_are_matched_by_full_names() -> None:
    members = [member("s10"), member("s1-x"), {"id": "7", "name": "", "learner": True}]
    assert rke2_plan.member_of("s1", members) is None
    assert rke2_plan.member_of("s10", members) == members[0]


@pytest.mark.parametrize(
    ("state", "started_at", "after", "left"),
    [
        ("active", 20.0, 10.0, []),
        ("active", 20.0, 0.0, []),
        ("active", 10.0, 10.0, ["u was not restarted yet"]),
        ("activating", 20.0, 10.0, ["u is activating"]),
        ("inactive", 0.0, 0.0, ["u is inactive"]),
    ],
)
def test_an_old_process_that_still_responds_does_not_pass_a_gate(
    state: str, started_at: float, after: float, left: list[str]
) -> None:
    assert rke2_plan.unmet_service({"state": state, "started_at": started_at}, "u", after) == left


def test_immutable_settings() -> None:
    desired = {"cni": ["canal"], "service-cidr": "10.44.0.0/16"}
    assert rke2_plan.immutable_faults(state("s1"), desired | {"service-cidr": "10.43.0.0/16"}, "t") == []
    assert rke2_plan.immutable_faults(new_host("s1"), desired, "u") == []
    assert rke2_plan.immutable_faults(state("s1"), desired, "t") == [
        "s1: the cluster was bootstrapped with service-cidr 10.43.0.0/16, and rke2_service_cidr is 10.44.0.0/16; "
        "the setting is immutable. Set it back to 10.43.0.0/16."
    ]


def test_another_token_is_a_fault_before_a_server_is_started_with_it() -> None:
    desired = {"cni": ["canal"], "service-cidr": "10.43.0.0/16"}
    [fault] = rke2_plan.immutable_faults(state("s1"), desired, "u")
    assert fault.startswith("s1: runs with another rke2_token than the one given")
    assert rke2_plan.immutable_faults(state("s1", token_digest=""), desired, "u") == []


def lost_quorum(names: list[str], **changes: Any) -> dict[str, Any]:
    """The named servers hold data, and their etcd knows three members."""
    members = [member(server) for server in SERVERS]
    etcd = {"cluster_id": "1", "members": members, "alarms": [], "error": "timed out"} | changes
    without_quorum = api({}, ready=False, error="timed out")
    return healthy_cluster() | {
        name: state(name, api=without_quorum, etcd=etcd) if name in names else new_host(name) for name in SERVERS
    }


def test_a_majority_without_data_is_reported_at_once() -> None:
    faults = plan_of(lost_quorum(["s2"]))["faults"]
    assert faults == [
        "s2: only 1 of 3 members of etcd have data, so the quorum is lost. "
        "Restore etcd as docs/runbooks/restore_etcd.md (Quorum lost) describes."
    ]


@pytest.mark.parametrize(
    "states",
    [
        lost_quorum(["s1", "s3"]),  # a power loss: two of three can start
        lost_quorum(["s1"], members=[member("s1")]),  # an interrupted bootstrap
        lost_quorum(["s1"], members=[]),  # etcd does not answer at all
        lost_quorum(["s1"], error=None),
    ],
)
def test_a_quorum_that_may_return_is_not_reported_as_lost(states: dict[str, Any]) -> None:
    assert rke2_plan.quorum_faults(states) == []


def test_a_server_of_a_restored_cluster_joins_although_its_node_is_listed() -> None:
    """Any other server without data is reported, because the cluster still lists it."""
    states = healthy_cluster()
    record = {"step": "reset", "target": "s1", "started_at": "2026-11-30T08:00:00Z"}
    states["s1"]["restore"] = record
    states["s2"] = new_host("s2") | {"restore": record | {"step": "moved"}}
    for name in ("s1", "s3"):
        states[name]["etcd"]["members"] = [member("s1"), member("s3")]
    assert (plan_of(states)["faults"], plan_of(states)["hosts"]["s2"]["action"]) == ([], "join")
    states["s2"]["restore"] = None
    assert "s2: holds no RKE2 data, but the cluster still lists it as a node" in plan_of(states)["faults"][0]
