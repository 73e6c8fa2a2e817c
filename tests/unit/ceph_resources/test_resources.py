"""Pools, file systems and clients: what is created, changed, confirmed, or only reported."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_resources as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph_resources import Wanted

HOSTS = ["one", "two", "three"]


def key(kind: int = 1) -> str:
    return base64.b64encode(struct.pack("<HIIH", kind, 0, 0, 16) + bytes(16)).decode()


def pool(name: str, **changes: Any) -> dict[str, Any]:
    """A pool in the format of `osd pool ls detail`."""
    return {
        "pool_id": 1,
        "pool_name": name,
        "type": 1,
        "size": 3,
        "min_size": 2,
        "pg_num": 32,
        "pg_num_target": 32,
        "pg_autoscale_mode": "on",
        "crush_rule": 0,
        "application_metadata": {"rbd": {}},
        "flags_names": "hashpspool,selfmanaged_snaps",
        "quota_max_bytes": 0,
        "quota_max_objects": 0,
        **changes,
    }


def filesystem(name: str = "shared", meta: int = 2, data: int = 3, active: bool = True) -> dict[str, Any]:
    info = {"gid_1": {"state": "up:active"}, "gid_2": {"state": "up:standby-replay"}} if active else {}
    return {"mdsmap": {"fs_name": name, "metadata_pool": meta, "data_pools": [data], "info": info}}


def mds(name: str = "shared", hosts: list[str] = HOSTS[:2]) -> dict[str, Any]:
    return {"service_type": "mds", "service_id": name, "placement": {"hosts": hosts}}


def view(**answers: Any) -> dict[str, Any]:
    shared = [
        pool("cephfs.shared.meta", pool_id=2, application_metadata={"cephfs": {}}),
        pool("cephfs.shared.data", pool_id=3, application_metadata={"cephfs": {}}),
    ]
    return plan.parse_resources(
        {
            "pools": [*answers.get("pools", []), *(shared if answers.get("filesystems") else [])],
            "rules": [{"rule_id": 0, "rule_name": "replicated_rule"}, {"rule_id": 1, "rule_name": "by_rack"}],
            "filesystems": {"filesystems": answers.get("filesystems", [])},
            "mds": answers.get("mds", []),
            "auth": {"auth_dump": [{"entity": "mon.", "key": key(2), "caps": {}}, *answers.get("clients", [])]},
            "insecure_keys": answers.get("insecure_keys", "false\n"),
            "namespaces": answers.get("namespaces", {}),
            "groups": answers.get("groups", {}),
        }
    )


def commands(steps: list[plan.Step]) -> list[str]:
    return [" ".join(step.command) for step in steps]


def made(declared: dict[str, Any], *there: dict[str, Any], **more: Any) -> plan.Result:
    return plan.pool_steps(view(pools=list(there)), Wanted(pools=[declared], **more))


def test_a_pool_gets_its_application_last() -> None:
    result = made({"name": "vm", "application": "rbd", "quota_bytes": 1000, "bulk": True})
    assert commands(result.steps) == [
        "osd pool create vm --pool_type replicated --bulk",
        "osd pool set vm size 3",
        "osd pool set vm min_size 2",
        "osd pool set vm pg_autoscale_mode on",
        "osd pool set-quota vm max_bytes 1000",
        "rbd pool init vm",
    ]
    assert result.steps[-1].tool


def test_a_pool_with_its_own_placement_groups_and_rule() -> None:
    result = made({"name": "x", "pg_num": 16, "crush_rule": "by_rack", "application": "thing"}, size=1)
    assert commands(result.steps) == [
        "osd pool create x --pool_type replicated --rule by_rack --pg_num 16 --autoscale_mode off",
        "osd pool set x size 1 --yes_i_really_mean_it",
        "osd pool set x min_size 1",
        "osd pool application enable x thing",
    ]


def test_an_erasure_pool() -> None:
    result = made({"name": "e", "type": "erasure", "erasure_profile": "k2m1", "application": "rgw"})
    assert commands(result.steps) == [
        "osd pool create e --pool_type erasure --erasure_code_profile k2m1",
        "osd pool set e pg_autoscale_mode on",
        "osd pool application enable e rgw",
    ]


SAME = [
    ({"name": "vm", "application": "rbd"}, pool("vm")),
    ({"name": "vm", "application": "rbd", "size": 3, "min_size": 2}, pool("vm")),
    ({"name": "vm", "bulk": True}, pool("vm", flags_names="hashpspool,bulk")),
    ({"name": "vm", "pg_num": 32}, pool("vm", pg_autoscale_mode="off")),
    ({"name": "vm", "crush_rule": "replicated_rule"}, pool("vm")),
    ({"name": "vm", "quota_bytes": 5, "quota_objects": 6}, pool("vm", quota_max_bytes=5, quota_max_objects=6)),
    ({"name": "e", "type": "erasure"}, pool("e", type=3, size=4, min_size=3)),
]


@pytest.mark.parametrize(("declared", "there"), SAME)
def test_no_step_without_drift(declared: dict[str, Any], there: dict[str, Any]) -> None:
    result = made(declared, there)
    assert (result.steps, result.faults) == ([], [])


CHANGES = [
    ({"quota_bytes": 7}, {}, "osd pool set-quota vm max_bytes 7"),
    ({}, {"quota_max_objects": 9}, "osd pool set-quota vm max_objects 0"),
    ({"bulk": True}, {}, "osd pool set vm bulk true"),
    ({}, {"flags_names": "hashpspool,bulk"}, "osd pool set vm bulk false"),
    ({}, {"pg_autoscale_mode": "warn"}, "osd pool set vm pg_autoscale_mode on"),
    ({"pg_num": 64}, {"pg_autoscale_mode": "off"}, "osd pool set vm pg_num 64"),
    ({"application": "rbd"}, {"application_metadata": {}}, "rbd pool init vm"),
]


@pytest.mark.parametrize(("declared", "there", "command"), CHANGES)
def test_changes_without_confirmation(declared: dict[str, Any], there: dict[str, Any], command: str) -> None:
    result = made({"name": "vm"} | declared, pool("vm", **there))
    assert commands(result.steps) == [command]
    assert result.faults == []


RISKY = [
    ({"size": 2, "min_size": 2}, "size is 3, declared is 2", "osd pool set vm size 2"),
    ({"min_size": 1}, "min_size is 2, declared is 1", "osd pool set vm min_size 1"),
    (
        {"crush_rule": "by_rack"},
        "crush_rule is replicated_rule, declared is by_rack",
        "osd pool set vm crush_rule by_rack",
    ),
]


@pytest.mark.parametrize(("declared", "message", "command"), RISKY)
def test_changes_to_the_safety_of_data_need_a_confirmation(
    declared: dict[str, Any], message: str, command: str
) -> None:
    declared = {"name": "vm"} | declared
    refused = made(declared, pool("vm"), confirm=["other"])
    assert refused.steps == []
    assert message in refused.faults[0]
    assert "Add vm to ceph_pool_confirm" in refused.faults[0]
    allowed = made(declared, pool("vm"), confirm=["vm"])
    assert (commands(allowed.steps), allowed.faults) == ([command], [])


def test_an_unused_pool_of_an_interrupted_run_needs_no_confirmation() -> None:
    result = made({"name": "vm", "size": 2, "application": "rbd"}, pool("vm", application_metadata={}))
    assert commands(result.steps) == ["osd pool set vm size 2", "osd pool set vm min_size 1", "rbd pool init vm"]


def test_changes_that_are_impossible() -> None:
    assert "cannot change" in made({"name": "vm", "type": "erasure"}, pool("vm"), confirm=["vm"]).faults[0]
    taken = made({"name": "vm", "application": "rbd"}, pool("vm", application_metadata={"rgw": {}}))
    assert "its application is rgw" in taken.faults[0]


def test_namespaces_of_a_pool() -> None:
    wanted = Wanted(pools=[{"name": "vm", "namespaces": ["dev", "prod"]}])
    steps = plan.namespace_steps(view(namespaces={"vm": ["dev"]}), wanted)
    assert commands(steps) == ["rbd namespace create --pool vm --namespace prod"]
    assert steps[0].tool


SHARED = Wanted(filesystems=[{"name": "shared", "subvolume_groups": ["dev"]}], hosts=HOSTS)


def test_a_file_system_gets_its_own_pools() -> None:
    assert [one["name"] for one in SHARED.all_pools()] == ["cephfs.shared.meta", "cephfs.shared.data"]
    assert not [step for step in plan.pool_steps(view(), SHARED).steps if "application" in step.command]
    steps = plan.filesystem_steps(view(), SHARED).steps
    assert commands(steps) == ["fs new shared cephfs.shared.meta cephfs.shared.data", "orch apply"]
    assert json.loads(steps[1].input or "")["placement"] == {"hosts": ["one", "two"]}
    assert plan.inactive(view(), SHARED) == ["the file system shared has no active metadata server"]


def test_an_existing_file_system() -> None:
    seen = view(filesystems=[filesystem()], mds=[mds()], groups={"shared": ["dev"]})
    assert plan.pool_steps(seen, SHARED) == plan.Result()
    assert plan.filesystem_steps(seen, SHARED) == plan.Result()
    assert plan.group_steps(seen, SHARED) == []
    assert plan.inactive(seen, SHARED) == []
    assert plan.undeclared(seen, SHARED) == []
    moved = view(filesystems=[filesystem()], mds=[mds(hosts=["three"])])
    assert commands(plan.filesystem_steps(moved, SHARED).steps) == ["orch apply"]
    assert commands(plan.group_steps(moved, SHARED)) == ["fs subvolumegroup create shared dev"]


def test_a_file_system_with_other_pools_is_a_fault() -> None:
    seen = view(filesystems=[filesystem(meta=3, data=2)], mds=[mds()])
    assert "Declare another name" in plan.filesystem_steps(seen, SHARED).faults[0]


def client(entity: str, kind: int = 1, **caps: str) -> dict[str, Any]:
    return {"entity": entity, "key": key(kind), "caps": caps}


RBD = {"name": "csi", "kind": "rbd", "pool": "vm", "namespace": "dev"}
RBD_CAPS = {
    "mon": "profile rbd",
    "mgr": "profile rbd pool=vm namespace=dev",
    "osd": "profile rbd pool=vm namespace=dev",
}


def test_caps_are_the_least_that_csi_needs() -> None:
    assert plan.caps_of(RBD) == RBD_CAPS
    assert plan.caps_of({"kind": "rbd", "pool": "vm"})["osd"] == "profile rbd pool=vm"
    assert plan.caps_of({"kind": "cephfs", "filesystem": "f", "subvolume_group": "g"}) == {
        "mon": "allow r fsname=f",
        "mgr": "allow rw",
        "mds": "allow r fsname=f path=/volumes, allow rws fsname=f path=/volumes/g",
        "osd": "allow rwx tag cephfs metadata=f, allow rw tag cephfs data=f",
    }
    assert plan.caps_of({"kind": "custom", "caps": {"mon": "allow r", "osd": ""}}) == {"mon": "allow r"}


def test_a_client_with_an_insecure_key_is_created_while_they_are_allowed() -> None:
    steps = plan.client_steps(view(), Wanted(clients=[RBD])).steps
    assert commands(steps) == [
        "config set mon mon_auth_allow_insecure_key true",
        "auth get-or-create client.csi mgr profile rbd pool=vm namespace=dev mon profile rbd "
        "osd profile rbd pool=vm namespace=dev --key_type aes",
        "config set mon mon_auth_allow_insecure_key false",
    ]
    strong = plan.client_steps(view(), Wanted(clients=[RBD], key_type="aes256k")).steps
    assert [step.command[0] for step in strong] == ["auth"]
    assert strong[0].command[-2:] == ("--key_type", "aes256k")


def test_insecure_keys_are_forbidden_after_an_interrupted_run() -> None:
    seen = view(clients=[client("client.csi", **RBD_CAPS)], insecure_keys="true\n")
    assert plan.client_steps(seen, Wanted(clients=[RBD])).steps == [plan.FORBID_INSECURE_KEYS]


def test_caps_are_compared_before_they_are_written() -> None:
    same = view(clients=[client("client.csi", **RBD_CAPS)])
    assert plan.client_steps(same, Wanted(clients=[RBD])).steps == []
    more = view(clients=[client("client.csi", **RBD_CAPS, mds="allow *")])
    steps = plan.client_steps(more, Wanted(clients=[RBD])).steps
    assert [step.command[:3] for step in steps] == [("auth", "caps", "client.csi")]


LACKING = [
    (RBD | {"pool": "none"}, "uses the pool 'none', which is not in ceph_pools"),
    (RBD | {"namespace": "prod"}, "uses the namespace prod, which the pool vm does not declare"),
    ({"name": "c", "kind": "cephfs", "filesystem": "none"}, "which is not in ceph_filesystems"),
    (
        {"name": "c", "kind": "cephfs", "filesystem": "shared", "subvolume_group": "x"},
        "the file system shared does not declare",
    ),
    ({"name": "c"}, "c has no caps"),
]


@pytest.mark.parametrize(("declared", "message"), LACKING)
def test_a_client_uses_declared_resources(declared: dict[str, Any], message: str) -> None:
    wanted = Wanted(pools=[{"name": "vm", "namespaces": ["dev"]}], filesystems=SHARED.filesystems, clients=[declared])
    found = plan.client_faults(wanted)
    assert len(found) == 1
    assert message in found[0]
    good = {"name": "c", "kind": "cephfs", "filesystem": "shared", "subvolume_group": "dev"}
    assert plan.client_faults(Wanted(pools=wanted.pools, filesystems=wanted.filesystems, clients=[RBD, good])) == []


def test_undeclared_objects_are_reported_and_unchanged() -> None:
    seen = view(
        pools=[
            pool("old"),
            pool(".mgr", application_metadata={"mgr": {}}),
            pool("default.rgw.log", application_metadata={"rgw": {}}),
        ],
        filesystems=[filesystem("other")],
        clients=[
            client("client.stray"),
            client("client.admin", 2),
            client("client.bootstrap-osd", 2),
            client("client.csi", 2),
        ],
    )
    wanted = Wanted(clients=[RBD])
    assert plan.undeclared(seen, wanted) == [
        "pool cephfs.shared.data is not declared; unchanged",
        "pool cephfs.shared.meta is not declared; unchanged",
        "pool old is not declared; unchanged",
        "file system other is not declared; unchanged",
        "client.csi has a key of type aes256k, declared is aes; only rotate_ceph_keys.yml changes it",
        "client.stray is not declared; unchanged",
    ]
    steps = [*plan.pool_steps(seen, wanted).steps, *plan.filesystem_steps(seen, wanted).steps]
    assert not [step for step in steps if {"rm", "delete", "del"} & set(step.command)]


def test_types_of_keys() -> None:
    assert [plan.key_type(text) for text in (key(1), key(2), "", "?")] == ["aes", "aes256k", "unknown", "unknown"]
