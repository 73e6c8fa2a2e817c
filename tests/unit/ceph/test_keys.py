"""The next key to rotate: order, type, age, and daemons that run with an old key."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_keys
from ansible_collections.slipway.platform.plugins.module_utils.ceph_keys import Key

OLD, SINCE, NEW, LATER = 100.0, 500.0, 1000.0, 2000.0
DAEMONS = ["crash.h1", "mgr.h1.a", "mgr.h2.b", "mon.h1", "mon.h2", "osd.0", "osd.1", "rgw.s3.h1.x"]


def view(**changes: Any) -> dict[str, Any]:
    """Every daemon runs with a new key."""
    entities = {ceph_keys.entity_of(name) for name in DAEMONS} | {"client.admin", "client.csi"}
    return {
        "keys": {name: Key("aes256k", NEW) for name in entities} | {"client.csi": Key("aes", OLD)},
        "active": "mgr.h1.a",
        "standbys": 1,
        "daemons": dict.fromkeys(DAEMONS, LATER),
        "unmanaged": [],
    } | changes


def step(seen: dict[str, Any], clients: list[str] | None = None) -> tuple[str, str] | None:
    found = ceph_keys.next_step(seen, since=SINCE, key_type="aes256k", clients=clients or [])
    return None if found is None else (found.action, found.name)


@pytest.mark.parametrize(
    ("daemon", "entity"),
    [
        ("mon.h1", "mon."),
        ("mgr.h1.a", "mgr.h1.a"),
        ("osd.0", "osd.0"),
        ("crash.h1", "client.crash.h1"),
        ("rgw.s3.h1.x", "client.rgw.s3.h1.x"),
    ],
)
def test_entity_of_a_daemon(daemon: str, entity: str) -> None:
    assert ceph_keys.entity_of(daemon) == entity


def test_a_key_is_parsed_to_its_type_and_age_only() -> None:
    text = base64.b64encode(struct.pack("<HIIH", 2, 1729075865, 500000000, 32) + bytes(32)).decode()
    assert ceph_keys.parse_key(text) == Key("aes256k", 1729075865.5)


def test_time() -> None:
    assert ceph_keys.parse_time("2026-11-21T08:43:09.433569Z") == 1795250589.433569


def test_no_key_is_left_to_rotate() -> None:
    assert step(view()) is None


def test_a_client_is_rotated_only_if_it_is_listed() -> None:
    assert step(view(), ["client.csi"]) == ("rotate", "client.csi")


def test_the_order_is_standby_manager_active_manager_monitors_osds_others() -> None:
    seen = view()
    entities = [ceph_keys.entity_of(name) for name in DAEMONS] + ["client.admin"]
    seen["keys"] |= {name: Key("aes", OLD) for name in entities}
    seen["daemons"] = dict.fromkeys(DAEMONS, OLD)
    done, now = [], NEW
    while (found := step(seen)) is not None:
        action, name = found
        done.append(f"{action} {name}")
        now += 1
        if action == "rotate":
            seen["keys"][name] = Key("aes256k", now)
        elif action == "redeploy":
            seen["daemons"][name] = now
        else:
            seen["active"] = "mgr.h2.b"
    assert done == [
        "rotate mgr.h2.b",
        "redeploy mgr.h2.b",
        "fail mgr.h1.a",
        "rotate mgr.h1.a",
        "redeploy mgr.h1.a",
        "rotate mon.",
        "redeploy mon.h1",
        "redeploy mon.h2",
        "rotate osd.0",
        "redeploy osd.0",
        "rotate osd.1",
        "redeploy osd.1",
        "rotate client.rgw.s3.h1.x",
        "redeploy rgw.s3.h1.x",
        "rotate client.crash.h1",
        "redeploy crash.h1",
        "rotate client.admin",
    ]


def test_a_daemon_is_redeployed_after_an_interrupted_run() -> None:
    seen = view()
    seen["keys"]["osd.1"] = Key("aes256k", LATER + 1)
    assert step(seen) == ("redeploy", "osd.1")


def test_a_young_key_of_the_wrong_type_is_due() -> None:
    seen = view()
    seen["keys"]["osd.1"] = Key("aes", NEW)
    assert step(seen) == ("rotate", "osd.1")


def test_faults() -> None:
    assert ceph_keys.faults(view(), ["client.csi"]) == []
    found = ceph_keys.faults(view(standbys=0), ["client.nobody", "client.admin", "client.crash.h1"])
    assert [fault.split(",")[0].split(". ")[0] for fault in found] == [
        "client.nobody: does not exist",
        "client.admin: belongs to a daemon or the administrator and is rotated anyway",
        "client.crash.h1: belongs to a daemon or the administrator and is rotated anyway",
        "No standby manager",
    ]


class Recorded:
    def batch(self, commands: list[list[str]]) -> list[Any]:
        key = base64.b64encode(struct.pack("<HIIH", 1, 100, 0, 16) + bytes(16)).decode()
        daemons = [
            {"daemon_type": kind, "daemon_id": name, "service_name": service, "started": "2026-11-21T08:43:09.433569Z"}
            for kind, name, service in [("mgr", "h1.a", "mgr"), ("mon", "h1", "mon"), ("osd", "0", "osd.h1")]
        ]
        answers: dict[str, Any] = {
            "auth ls": {"auth_dump": [{"entity": "mon.", "key": key}]},
            "mgr dump": {"active_name": "h1.a", "standbys": [{}]},
            "orch ps --refresh": daemons,
            "orch ls": [
                {"service_name": "mgr"},
                {"service_name": "mon", "unmanaged": True},
                {"service_name": "osd.h1", "unmanaged": True},
            ],
        }
        return [answers[" ".join(command)] for command in commands]


def test_daemons_of_unmanaged_services_keep_their_keys() -> None:
    seen = ceph_keys.read(Recorded())  # type: ignore[arg-type]
    assert list(seen["daemons"]) == ["mgr.h1.a"]
    assert seen["unmanaged"] == ["mon.h1", "osd.0"]
    assert seen["keys"] == {"mon.": Key("aes", 100.0)}


@pytest.mark.parametrize(
    ("started_at", "faults"), [(LATER, []), (NEW, []), (OLD, ["not restarted yet"]), (None, ["not restarted yet"])]
)
def test_a_daemon_runs_with_its_newest_key_after_a_restart(started_at: float | None, faults: list[str]) -> None:
    seen = view()
    if started_at is None:
        del seen["daemons"]["rgw.s3.h1.x"]
    else:
        seen["daemons"]["rgw.s3.h1.x"] = started_at
    assert ceph_keys.restart_faults(seen, "rgw.s3.h1.x") == faults


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, ["no other manager is active"]),
        ({"active": "mgr."}, ["no other manager is active"]),
        ({"active": "mgr.h2.b", "standbys": 0}, ["no standby manager"]),
        ({"active": "mgr.h2.b"}, []),
    ],
)
def test_a_failover_is_complete_with_another_manager_and_a_standby(changes: dict[str, Any], faults: list[str]) -> None:
    assert ceph_keys.failover_faults(view(**changes), "mgr.h1.a") == faults
