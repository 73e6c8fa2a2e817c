"""What the plan decides, from states as rke2_state reads them."""

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
    """A node that is as wanted in a cluster that is as wanted."""
    server = name.startswith("s")
    return {
        "type": "server" if server else "agent",
        "node_name": name,
        "desired_version": NEW,
        "installed_version": NEW,
        "service": {"found": True, "state": "active", "enabled": True, "started_at": 1.0, "restarts": 0},
        "has_data": True,
        "token_digest": "t" if server else "",
        "constants": {"cni": "canal", "service-cidr": "10.43.0.0/16"},
        "different": [],
        "unread": [],
        "sysctls": [],
        "missing_users": [],
        "api": api({other: node() for other in SERVERS + AGENTS}) if server else None,
        "etcd": {"cluster_id": "1", "members": [member(s) for s in SERVERS], "alarms": [], "error": None}
        if server
        else None,
        "ingress_certificate": {"pem": "", "digest": "x"} if server else None,
    } | changes


def bare(name: str) -> dict[str, Any]:
    service = {"found": False, "state": "inactive", "enabled": False, "started_at": 0.0, "restarts": 0}
    return state(
        name, has_data=False, installed_version=None, service=service, api=None, etcd=None, ingress_certificate=None
    )


def whole() -> dict[str, Any]:
    return {name: state(name) for name in SERVERS + AGENTS}


def with_nodes(states: dict[str, Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    """Every server's API tells of these nodes."""
    for name in SERVERS:
        if states[name]["api"]:
            states[name]["api"]["nodes"] |= nodes
    return states


def make(states: dict[str, Any], version: str = NEW) -> dict[str, Any]:
    return rke2_plan.plan(states, version=version, servers=SERVERS, agents=AGENTS)


def test_a_cluster_is_settled_when_every_server_sees_it_whole() -> None:
    assert make(whole())["settled"]
    assert not make(whole(), "v1.36.4+rke2r1")["settled"]
    for name in SERVERS:
        blind = whole()
        blind[name]["api"]["error"] = "refused"
        unready = whole()
        unready[name]["api"]["nodes"][AGENTS[0]]["ready"] = False
        assert not make(blind)["settled"] and not make(unready)["settled"]
        assert not make({other: state for other, state in whole().items() if other != name})["settled"]


def test_nothing_is_restarted_under_an_alarm_of_etcd() -> None:
    states = whole()
    for name in SERVERS:  # every member tells of all alarms
        states[name]["etcd"]["alarms"] = [{"member": "s1-0123abcd", "alarm": "NOSPACE"}]
    states["s2"]["unread"] = ["/etc/rancher/rke2/config.yaml"]
    plan = make(states)
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
    plan = make(whole(), text)
    assert plan["faults"] == [f"rke2_version: {text!r} is not an RKE2 version; write it in full, like v1.36.3+rke2r1"]


@pytest.mark.parametrize(
    ("running", "desired", "word"),
    [
        (NEW, OLD, "cannot go back"),
        ("v1.34.9+rke2r1", NEW, "minor version would be skipped"),
        ("v1.35.7+rke2r1", NEW, None),
        (OLD, NEW, None),
    ],
)
def test_versions_that_may_follow(running: str, desired: str, word: str | None) -> None:
    fault = rke2_plan.version_fault("s1", running, desired)
    assert (fault is None) if word is None else (fault is not None and word in fault)


def test_a_cluster_as_wanted_needs_nothing() -> None:
    plan = make(whole())
    assert plan["faults"] == []
    assert set(actions(plan).values()) == {"none"}
    assert plan["snapshot_host"] is None


def test_bare_hosts_are_founded_by_the_first() -> None:
    plan = make({name: bare(name) for name in SERVERS + AGENTS})
    assert actions(plan) == {"s1": "bootstrap", "s2": "join", "s3": "join", "a1": "join"}
    assert plan["hosts"]["s3"]["look_from"] == "s1"
    assert plan["hosts"]["s3"]["others"] == ["s1", "s2"]
    assert plan["hosts"]["a1"]["others"] == SERVERS


def test_nothing_is_founded_while_a_server_is_unknown() -> None:
    plan = make({"s1": bare("s1"), "s2": bare("s2")})
    assert plan["founder"] is None
    assert "s3 could not be read" in plan["faults"][0]


def test_a_founded_cluster_is_joined_by_the_rest() -> None:
    states = {name: bare(name) for name in SERVERS + AGENTS}
    states["s1"] = state("s1", api=api({"s1": node()}))
    states["s1"]["etcd"]["members"] = [member("s1")]
    plan = make(states)
    assert plan["faults"] == []
    assert actions(plan) == {"s1": "none", "s2": "join", "s3": "join", "a1": "join"}
    assert plan["hosts"]["s2"]["others"] == ["s1"]
    assert plan["hosts"]["s3"]["others"] == ["s1", "s2"]


def test_a_first_server_that_lost_its_data_never_founds_a_second_cluster() -> None:
    states = whole() | {"s1": bare("s1")}
    for name in ("s2", "s3"):
        del states[name]["api"]["nodes"]["s1"]
        states[name]["etcd"]["members"] = [member("s2"), member("s3")]
    plan = make(states)
    assert plan["faults"] == []
    assert actions(plan)["s1"] == "join"
    assert plan["hosts"]["s1"]["others"] == ["s2", "s3"]


@pytest.mark.parametrize("name", ["s1", "s3", "a1"])
def test_a_rebuilt_host_that_the_cluster_still_knows_is_named(name: str) -> None:
    plan = make(whole() | {name: bare(name)})
    assert len(plan["faults"]) == 1
    assert plan["faults"][0].startswith(f"{name} holds no RKE2 data")
    assert f"kubectl delete node {name}" in plan["faults"][0]


def test_a_newer_version_restarts_what_runs_the_old_one() -> None:
    states = with_nodes(whole(), s2=node(OLD), a1=node(OLD))
    plan = make(states)
    assert actions(plan) == {"s1": "none", "s2": "restart", "s3": "none", "a1": "restart"}
    assert plan["hosts"]["s2"]["reasons"] == [f"runs {OLD}, {NEW} is wanted"]
    assert plan["snapshot_host"] == "s1"


def test_the_version_on_disk_decides_nothing() -> None:
    states = whole()
    states["s1"]["installed_version"] = OLD
    assert actions(make(states))["s1"] == "none"


def test_a_changed_file_restarts() -> None:
    states = whole()
    states["s3"]["unread"] = ["/etc/rancher/rke2/config.yaml"]
    plan = make(states)
    assert actions(plan)["s3"] == "restart"
    assert plan["hosts"]["s3"]["reasons"] == ["started before a change of /etc/rancher/rke2/config.yaml"]


def test_agents_alone_need_no_snapshot() -> None:
    assert make(with_nodes(whole(), a1=node(OLD)))["snapshot_host"] is None


def test_our_own_cordon_is_lifted_and_a_persons_is_not() -> None:
    states = with_nodes(whole(), s1=node(unschedulable=True, cordoned_by_role=True), s2=node(unschedulable=True))
    plan = make(states)
    assert actions(plan)["s1"] == "resume"
    assert actions(plan)["s2"] == "none"
    assert plan["hosts"]["s2"]["cordoned"] is True


def test_two_clusters_are_never_mended_by_a_run() -> None:
    states = whole()
    states["s2"]["etcd"]["cluster_id"] = "2"
    assert "2 different etcd clusters" in make(states)["faults"][0]


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "none"),
        ({"service": {"state": "inactive"}}, "start"),
        ({"service": {"state": "failed"}}, "start"),
        ({"service": {"state": "activating"}}, "wait"),
        ({"service": {"state": "activating"}, "unread": ["x"]}, "restart"),
        ({"service": {"state": "failed"}, "installed_version": OLD}, "restart"),
        ({"api": {"error": "refused"}}, "wait"),
        ({"has_data": False, "service": {"state": "inactive"}}, "none"),
    ],
)
def test_servers_that_are_down_are_started_before_the_plan(changes: dict[str, Any], action: str) -> None:
    assert rke2_plan.recover_action(state("s1") | changes) == action


def test_agents_are_never_started_before_the_servers() -> None:
    assert rke2_plan.recover_action(state("a1") | {"service": {"state": "inactive"}}) == "none"


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
        ({"nodes": {"s1": node(), "s2": node(etcd_voter=False)}}, {}, "node s2 says EtcdIsVoter=False"),
        ({}, {"error": "timed out"}, "etcd does not answer (timed out)"),
        (
            {},
            {"alarms": [{"member": "s2-0123abcd", "alarm": "NOSPACE"}]},
            "etcd member s2-0123abcd raised the alarm NOSPACE: every write is refused. Free its space and disarm it "
            "(docs/runbooks/upgrade_rke2.md, Alarms of etcd)",
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
def test_what_a_gate_waits_for(api_changes: dict[str, Any], etcd_changes: dict[str, Any], sentence: str) -> None:
    view = {"api": VIEW["api"] | api_changes, "etcd": VIEW["etcd"] | etcd_changes}
    assert rke2_plan.unmet(view, nodes=["s1", "s2"], version=NEW, members=["s1", "s2"]) == [sentence]


def test_a_gate_opens() -> None:
    assert rke2_plan.unmet(VIEW, nodes=["s1", "s2"], version=NEW, members=["s1", "s2"]) == []


def test_members_are_matched_by_whole_names() -> None:
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
def test_an_old_process_that_still_answers_opens_no_gate(
    state: str, started_at: float, after: float, left: list[str]
) -> None:
    assert rke2_plan.unmet_service({"state": state, "started_at": started_at}, "u", after) == left


def test_what_a_cluster_was_founded_with_stays() -> None:
    wanted = {"cni": ["canal"], "service-cidr": "10.44.0.0/16"}
    assert rke2_plan.constant_faults(state("s1"), wanted | {"service-cidr": "10.43.0.0/16"}, "t") == []
    assert rke2_plan.constant_faults(bare("s1"), wanted, "u") == []
    assert rke2_plan.constant_faults(state("s1"), wanted, "t") == [
        "s1 was founded with service-cidr 10.43.0.0/16, and rke2_service_cidr is 10.44.0.0/16: "
        "it never changes in the life of a cluster. Set it back to 10.43.0.0/16."
    ]


def test_a_token_that_the_cluster_does_not_know_is_refused_before_a_server_is_started_with_it() -> None:
    wanted = {"cni": ["canal"], "service-cidr": "10.43.0.0/16"}
    [fault] = rke2_plan.constant_faults(state("s1"), wanted, "u")
    assert fault.startswith("s1 runs with another rke2_token than the one given, and would not start with this one")
    assert rke2_plan.constant_faults(state("s1", token_digest=""), wanted, "u") == []
