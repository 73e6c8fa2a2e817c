"""Drift of a whole cluster: which parts differ, and that a failed read counts as drift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import (
    ceph_gateway_read,
    ceph_object_gateways,
    ceph_osd_plan,
    ceph_osd_read,
    ceph_resource_read,
    ceph_resources,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError
from ansible_collections.slipway.platform.plugins.modules import ceph_drift

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n"
STATUS = {
    "orchestrated": True, "quorum": ["a"], "monitors": ["a"], "managers": 1, "osds": 1, "osds_up": 1, "osds_in": 1,
    "unclean": {}, "warnings": {}, "versions": ["20.2.4"], "config": [], "modules": [], "muted": [], "services": [],
    "ciphers": {"allowed": ["aes"], "preferred": "aes", "service": "aes"}, "keyrings": ["client.admin"],
    "hosts": {"a": {"address": "10.0.0.1", "labels": ["_admin"], "status": ""}}, "orchestrator_monitors": ["a"],
}  # fmt: skip
DISK = {"path": "/dev/disk/by-id/1", "device": "/dev/sdb", "verdict": "ours", "osd_id": 0, "osd_uuid": "u"}
GIVEN: dict[str, Any] = {
    "fsid": "f",
    "version": "20.2.4",
    "status": STATUS,
    "members": {"hosts": {"a": "10.0.0.1"}, "monitors": ["a"], "managers": ["a"], "ssh_user": "x", "ciphers": ["aes"]},
    "osds": {"hosts": {"a": [DISK]}, "method": "raw", "encrypted": False},
    "resources": {"pools": [], "filesystems": [], "clients": [], "confirm": [], "hosts": ["a"], "key_type": "aes",
                  "default_size": 1},
    "gateways": {"name": "s3", "hosts": {"a": "10.0.0.1"}, "port": 443, "server_name": "s3.test", "options": {}},
    "probes": [],
}  # fmt: skip


class PrefetchRecorder:
    """A test double that only records prefetched commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def prefetch(self, commands: list[list[str]], *, texts: list[list[str]]) -> None:
        self.commands = [*commands, *texts]


def fail(*arguments: Any, **more: Any) -> Any:
    raise CephError(110, "no answer")


def osds(**more: Any) -> dict[str, Any]:
    """One OSD that is up, in and of the disk of host a."""
    view = ceph_osd_plan.parse_osds(
        {"osds": [{"osd": 0, "uuid": "u", "up": 1, "in": 1, "state": ["exists", "up"]}]},
        [{"id": 0, "hostname": "a", "devices": "sdb"}],
        {"nodes": [{"type": "host", "name": "a", "children": [0]}]},
        [],
        [{"daemon_name": "osd.0", "hostname": "a", "status_desc": "running"}],
    )
    wanted = ceph_osd_plan.Wanted({"a": [DISK]}, "raw", False)
    return view | {"specs": {"a": ceph_osd_plan.osd_spec("a", [DISK], wanted, unmanaged=True)}} | more


def gateways(**more: Any) -> ceph_object_gateways.Found:
    wanted = ceph_drift.gateways_of(GIVEN["gateways"])
    values: dict[str, Any] = {"spec": wanted.spec(), "options": wanted.all_options, "certificate": CERTIFICATE}
    return ceph_object_gateways.Found(**values | more)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Compare with readers that return the given state."""

    def compare(**given: Any) -> dict[str, Any]:
        resources = ceph_resources.parse_resources(
            {
                "pools": [],
                "rules": [],
                "filesystems": {},
                "mds": [],
                "auth": {"auth_dump": []},
                "insecure_keys": "false",
            }
        )
        monkeypatch.setattr(ceph_osd_read, "read_osds", given.get("osds", lambda cluster: osds()))
        monkeypatch.setattr(
            ceph_resource_read, "read_resources", given.get("resources", lambda cluster, wanted: resources)
        )
        monkeypatch.setattr(ceph_gateway_read, "read", given.get("gateways", lambda *arguments: gateways()))
        monkeypatch.setattr(ceph_object_gateways, "unmet", lambda wanted, found: [])
        return ceph_drift.compare(PrefetchRecorder(), GIVEN | given.get("options", {}))  # type: ignore[arg-type]

    return compare


def drifted(result: dict[str, Any]) -> list[str]:
    return [part for part, messages in result["drift"].items() if messages]


def test_a_changed_option_is_drift_of_the_members_alone(read: Callable[..., dict[str, Any]]) -> None:
    before = read()["drift"]
    members = GIVEN["members"] | {"config": {"global": {"some_option": "7"}}}
    after = read(options={"members": members})["drift"]
    assert any("some_option" in message for message in after["members"])
    assert {part: after[part] for part in after if part != "members"} == {
        part: before[part] for part in before if part != "members"
    }


@pytest.mark.parametrize(
    ("part", "given"),
    [
        ("osds", {"osds": fail}),
        (
            "osds",
            {"options": {"osds": GIVEN["osds"] | {"hosts": {"a": [DISK | {"verdict": "empty", "osd_id": None}]}}}},
        ),
        ("pools", {"options": {"resources": GIVEN["resources"] | {"pools": [{"name": "p", "application": "rbd"}]}}}),
        ("clients", {"options": {"resources": GIVEN["resources"] | {"clients": [{"name": "c"}]}}}),
        ("gateways", {"gateways": fail}),
        ("gateways", {"gateways": lambda *arguments: gateways(options={})}),
        ("gateways", {"gateways": lambda *arguments: gateways(certificate="")}),
        (
            "gateways",
            {
                "options": {
                    "probes": [
                        {
                            "name": "g",
                            "kind": "redirect",
                            "address": "127.0.0.1",
                            "port": 1,
                            "server_name": "s3.test",
                            "path": "/",
                        }
                    ]
                }
            },
        ),
        ("health", {"options": {"status": STATUS | {"osds_up": 0}}}),
        ("health", {"options": {"version": "20.2.5"}}),
    ],
)
def test_a_difference_is_drift_of_its_part(
    read: Callable[..., dict[str, Any]], part: str, given: dict[str, Any]
) -> None:
    assert part not in drifted(read())
    assert part in drifted(read(**given))


def test_resources_that_cannot_be_read_are_drift_of_pools_and_clients(read: Callable[..., dict[str, Any]]) -> None:
    assert {"pools", "clients"} <= set(drifted(read(resources=fail)))


def test_without_a_manager_the_members_have_drifted(read: Callable[..., dict[str, Any]]) -> None:
    assert read(options={"status": STATUS | {"orchestrated": False}})["drift"]["members"] == ["no manager answers"]


def test_the_certificate_is_returned_without_its_key(read: Callable[..., dict[str, Any]]) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nAQ==\n-----END PRIVATE KEY-----\n"
    assert read(gateways=lambda *arguments: gateways(certificate=key + CERTIFICATE))["certificate"] == CERTIFICATE


def test_without_gateways_none_are_read(read: Callable[..., dict[str, Any]]) -> None:
    result = read(options={"gateways": {}}, gateways=fail)
    assert "gateways" not in drifted(result)
    assert result["certificate"] == ""
