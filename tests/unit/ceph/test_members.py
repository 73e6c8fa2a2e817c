"""Steps that reconcile the members of a running cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.ceph_cluster import devices, ini
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import (
    Wanted,
    access_steps,
    member_steps,
    memory_target,
    option_steps,
    same_value,
    undeclared,
    unmet,
    version_faults,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph_status import osds_of, parse_status

WANTED = Wanted(
    hosts={"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3", "d": "10.0.0.4"},
    monitors=["a", "b", "c"],
    managers=["a", "b"],
    ssh_user="cephadm",
    config={"global": {"ms_cluster_mode": "secure"}, "mgr": {"mgr/prometheus/server_port": 9283}},
    modules=["prometheus"],
    muted=["AUTH_INSECURE_KEYS_ALLOWED"],
)


def service(kind: str, hosts: list[str], **more: Any) -> dict[str, Any]:
    return {"service_type": kind, "service_name": kind, "placement": {"hosts": hosts}, **more}


def built(**changes: Any) -> dict[str, Any]:
    return {
        "bootstrapped": True,
        "orchestrated": True,
        "monitors": ["a", "b", "c"],
        "keyrings": ["client.admin"],
        "orchestrator_monitors": ["a", "b", "c"],
        "quorum": ["a", "b", "c"],
        "managers": 2,
        "osds": 3,
        "osds_up": 3,
        "osds_in": 3,
        "unclean": {},
        "warnings": {},
        "config": [
            {"section": "global", "name": "ms_cluster_mode", "value": "secure", "mask": ""},
            {"section": "mgr", "name": "mgr/prometheus/server_port", "value": "9283", "mask": ""},
            {"section": "global", "name": "container_image", "value": "x@sha256:1", "mask": ""},
        ],
        "modules": ["prometheus"],
        "ciphers": {"allowed": ["aes", "aes256k"], "preferred": "aes256k", "service": "aes256k"},
        "muted": ["AUTH_INSECURE_KEYS_ALLOWED"],
        "versions": ["20.2.4"],
        "ssh_user": "cephadm",
        "ssh_key": "ssh-ed25519 AAAA",
        "hosts": {
            name: {"address": address, "labels": ["_admin"] if name != "d" else [], "status": ""}
            for name, address in WANTED.hosts.items()
        },
        "services": [
            service("mon", ["c", "b", "a"], unmanaged=True),
            service("mgr", ["a", "b"]),
            service("crash", ["a", "b", "c", "d"]),
        ],
    } | changes


def steps(view: dict[str, Any], wanted: Wanted = WANTED) -> list[str]:
    found = access_steps(view, wanted) + option_steps(view, wanted) + member_steps(view, wanted)
    return [" ".join(step.command) for step in found]


def test_a_cluster_as_declared_needs_no_step() -> None:
    assert steps(built()) == []
    assert undeclared(built(), WANTED) == []
    assert unmet(built(), WANTED, "20.2.4") == []


def test_a_new_cluster_gets_hosts_before_services_before_monitors() -> None:
    new = built(
        monitors=["a"], orchestrator_monitors=[], hosts={}, services=[], config=[], modules=[], muted=[],
        ssh_user="root", ssh_key="",
        ciphers={"allowed": ["aes256k"], "preferred": "aes256k", "service": "aes256k"},
    )  # fmt: skip
    assert steps(new) == [
        "cephadm set-user cephadm",
        "cephadm generate-key",
        "config set global ms_cluster_mode secure",
        "config set mgr mgr/prometheus/server_port 9283 --force",
        "mon set auth_allowed_ciphers aes,aes256k",
        "mgr module enable prometheus",
        "health mute AUTH_INSECURE_KEYS_ALLOWED --sticky",
        "orch apply",
        "orch apply",
        "orch daemon add mon b:10.0.0.2 c:10.0.0.3",
    ]
    documents = [json.loads(text) for text in (member_steps(new, WANTED)[0].input or "").split("---\n") if text]
    assert [document["hostname"] for document in documents] == ["a", "b", "c", "d"]
    assert documents[0] == {"service_type": "host", "hostname": "a", "addr": "10.0.0.1", "labels": ["_admin"]}
    assert documents[3]["labels"] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"hosts": built()["hosts"] | {"b": {"address": "10.0.0.9", "labels": ["_admin"], "status": ""}}},
            ["orch apply"],
        ),
        (
            {"hosts": built()["hosts"] | {"b": {"address": "10.0.0.2", "labels": [], "status": ""}}},
            ["orch host label add b _admin"],
        ),
        ({"services": [service("mon", ["a", "b", "c"]), *built()["services"][1:]]}, ["orch apply"]),
        ({"services": built()["services"][:2]}, ["orch apply"]),
        ({"monitors": ["a", "c"], "orchestrator_monitors": ["a", "c"]}, ["orch daemon add mon b:10.0.0.2"]),
        ({"keyrings": []}, ["orch client-keyring set client.admin label:_admin"]),
        ({"monitors": ["a", "c"]}, ["orch ps --hostname b --daemon_type mon --refresh"]),
        ({"ciphers": {"allowed": ["aes256k"], "preferred": "aes256k", "service": "aes256k"}},
         ["mon set auth_allowed_ciphers aes,aes256k"]),
        ({"ciphers": {"allowed": ["aes", "aes256k"], "preferred": "aes", "service": "aes256k"}},
         ["mon set auth_preferred_cipher aes256k"]),
        ({"muted": []}, ["health mute AUTH_INSECURE_KEYS_ALLOWED --sticky"]),
    ],
)  # fmt: skip
def test_only_differences_are_changed(change: dict[str, Any], expected: list[str]) -> None:
    assert steps(built(**change)) == expected


def test_a_monitor_that_is_about_to_join_is_not_added_again() -> None:
    assert steps(built(monitors=["a", "c"]), replace(WANTED, present=["b"])) == []


def test_allowed_key_types_are_never_reduced() -> None:
    assert steps(built(), replace(WANTED, ciphers=["aes256k"])) == []


def test_undeclared_objects_are_reported_and_unchanged() -> None:
    seen = built(
        monitors=["a", "b", "c", "x"],
        muted=["AUTH_INSECURE_KEYS_ALLOWED", "OSD_DOWN"],
        hosts=built()["hosts"] | {"x": {"address": "10.0.0.8", "labels": [], "status": ""}},
        config=[*built()["config"], {"section": "osd", "name": "osd_max_backfills", "value": "9", "mask": ""}],
    )
    assert steps(seen) == []
    assert undeclared(seen, WANTED) == [
        "host x is in the cluster but not declared; unchanged (drain_ceph_host.yml removes it)",
        "mon.x exists but is not declared; unchanged",
        "option osd_max_backfills of osd is 9 but not declared; unchanged",
        "the warning OSD_DOWN is muted but not listed in ceph_muted_warnings",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quorum": ["a", "b"]}, "the monitor of c is not in the quorum (a, b)"),
        ({"managers": 1}, "1 of 2 managers run"),
        (
            {"hosts": built()["hosts"] | {"b": {"address": "10.0.0.2", "labels": [], "status": "Offline"}}},
            "b is offline for the managers",
        ),
        ({"versions": ["20.2.3", "20.2.4"]}, "daemons run 20.2.3 instead of 20.2.4"),
        ({"hosts": {}}, "a is not part of the cluster"),
        ({"osds_up": 2}, "1 of 3 OSDs are down or out"),
        ({"unclean": {"active+undersized": 4}}, "not active+clean (4 active+undersized)"),
        ({"warnings": {"POOL_FULL": "a pool is full"}}, "POOL_FULL: a pool is full"),
    ],
)
def test_unmet_requirements(change: dict[str, Any], message: str) -> None:
    assert message in "; ".join(unmet(built(**change), WANTED, "20.2.4"))


@pytest.mark.parametrize(
    ("held", "wanted", "same"),
    [("true", "True", True), ("0.500000", "0.5", True), ("3", "3", True), ("secure", "crc", False), ("", "0", False)],
)
def test_values_are_compared_as_ceph_prints_them(held: str, wanted: str, same: bool) -> None:
    assert same_value(held, wanted) is same


@pytest.mark.parametrize(
    ("declared", "shared", "memory", "target"),
    [
        (0, False, 4096, 1638),
        (0, False, 65536, 8192),
        (0, False, 2100, 896),
        (0, True, 65536, 1536),
        (3000, True, 1, 3000),
    ],
)
def test_memory_of_an_osd(declared: int, shared: bool, memory: int, target: int) -> None:
    states = {"a": {"memory_mb": 99999}, "b": {"memory_mb": memory}}
    assert memory_target(states, declared, shared, 2048) == target


@pytest.mark.parametrize(
    ("version", "good"),
    [("20.2.4", True), ("20.2.10", True), ("20.2.3", False), ("19.2.9", False), ("21.2.0", True), ("21.1.9", False),
     ("v20.2.4", False), ("22.2.0", False)],
)  # fmt: skip
def test_releases_with_the_fix(version: str, good: bool) -> None:
    assert (version_faults(version, ["20.2.4", "21.2.0"]) == []) is good


def test_volumes_of_ceph_by_their_names() -> None:
    volumes = {
        name: {"id": number, "size_gb": 10, "path": f"/dev/disk/by-id/scsi-0HC_Volume_{number}"}
        for number, name in enumerate(["ceph", "ceph-2", "cephalopod", "data"])
    }
    assert [device["path"][-1] for device in devices(volumes)] == ["0", "1"]


def test_options_as_a_file() -> None:
    assert ini({"global": {"a": True, "b": 3}, "osd": {}}) == "[global]\na = true\nb = 3\n\n[osd]\n\n"


def test_the_view_of_a_cluster_without_a_manager() -> None:
    answers = {
        "status": json.dumps({"quorum_names": ["a"], "mgrmap": {"available": False}, "osdmap": {"num_osds": 0}}),
        "monmap": json.dumps({
            "fsid": "x", "mons": [{"name": "a", "rank": 0}],
            "auth_allowed_ciphers": [{"name": "aes256k", "value": 2}],
            "auth_preferred_cipher": {"name": "aes256k", "value": 2},
            "auth_service_cipher": {"name": "aes", "value": 1},
        }),
        "config": "[]", "modules": "{}", "versions": "{}", "bootstrapped": "",
        "health": json.dumps({"status": "HEALTH_WARN", "checks": {
            "A": {"summary": {"message": "shown"}, "muted": False},
            "B": {"summary": {"message": "hidden"}, "muted": True},
        }, "mutes": [{"code": "B", "sticky": True}]}),
    }  # fmt: skip
    view = parse_status(answers)
    assert view["monitors"] == view["quorum"] == ["a"]
    assert (view["bootstrapped"], view["orchestrated"], view["osds"], view["managers"]) == (False, False, 0, 0)
    assert view["ciphers"] == {"allowed": ["aes256k"], "preferred": "aes256k", "service": "aes"}
    assert (view["warnings"], view["muted"]) == ({"A": "shown"}, ["B"])


def test_a_flag_of_an_operation_is_no_fault() -> None:
    assert unmet(built(warnings={"OSDMAP_FLAGS": "noout flag(s) set"}), WANTED, "20.2.4") == []


def test_a_destroyed_osd_is_not_counted() -> None:
    osds = [{"osd": 0, "uuid": "u0", "state": ["exists", "up"]}, {"osd": 1, "uuid": "u1", "state": ["destroyed"]}]
    assert osds_of({"osds": osds}) == {"u0": "0"}
