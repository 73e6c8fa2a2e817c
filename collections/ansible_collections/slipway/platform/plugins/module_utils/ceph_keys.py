"""Which keys of a cluster to rotate, and in which order: reads, and the pure plan.

A key contains its creation time, so an interrupted rotation needs no record: keys younger than the given time are done,
and a daemon that was started before its key was created still runs with the old one.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

TYPES = {1: "aes", 2: "aes256k"}

# Standby managers first, then the active one after a failover; OSDs one at a time; daemons that serve clients last.
ORDER = ("mgr", "mon", "osd", "mds", "rgw", "crash", "ceph-exporter")
# For these types the entity has the daemon's name; for the others it is client.<name of the daemon>.
SERVICES = ("mgr", "osd", "mds")


@dataclass(frozen=True)
class Key:
    """Type and creation time of a key, never the key."""

    type: str
    created_at: float


@dataclass(frozen=True)
class Step:
    """The next action: `rotate` an entity's key, `redeploy` a daemon that runs with an old key, or `fail` over."""

    action: str
    name: str
    summary: str


def parse_key(text: str) -> Key:
    """A key is base64 of type (2 bytes), seconds and nanoseconds (4 each), length (2) and secret, little endian."""
    kind, seconds, nanoseconds = struct.unpack("<HII", base64.b64decode(text)[:10])
    return Key(TYPES.get(kind, str(kind)), seconds + nanoseconds / 1e9)


def entity_of(daemon: str) -> str:
    """mgr.h1.abc → itself; mon.h1 → mon.; crash.h1 → client.crash.h1."""
    kind = daemon.split(".", 1)[0]
    if kind == "mon":
        return "mon."
    return daemon if kind in SERVICES else f"client.{daemon}"


def parse_time(text: str) -> float:
    return datetime.strptime(text.rstrip("Z"), "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def read(cluster: Cluster) -> dict[str, Any]:
    keys, managers = cluster.batch([["auth", "ls"], ["mgr", "dump"]])
    daemons, services = cluster.batch([["orch", "ps", "--refresh"], ["orch", "ls"]])
    # The orchestrator never redeploys daemons of an unmanaged service (20.2.4), so their keys are not rotated here.
    unmanaged = {service["service_name"] for service in services if service.get("unmanaged")}
    return {
        "keys": {entry["entity"]: parse_key(entry["key"]) for entry in keys["auth_dump"]},
        "active": f"mgr.{managers.get('active_name', '')}",
        "standbys": len(managers.get("standbys", [])),
        "daemons": {
            f"{daemon['daemon_type']}.{daemon['daemon_id']}": parse_time(daemon["started"])
            for daemon in daemons
            if daemon.get("started") and daemon["daemon_type"] in ORDER and daemon.get("service_name") not in unmanaged
        },
        "unmanaged": sorted(
            f"{daemon['daemon_type']}.{daemon['daemon_id']}"
            for daemon in daemons
            if daemon["daemon_type"] in ORDER and daemon.get("service_name") in unmanaged
        ),
    }


def next_step(view: dict[str, Any], *, since: float, key_type: str, clients: list[str]) -> Step | None:
    """The first outstanding step; None when every key in question is younger than `since`."""
    ordered = sorted(view["daemons"], key=lambda name: (ORDER.index(name.split(".")[0]), name == view["active"], name))
    for daemon in ordered:
        entity = entity_of(daemon)
        key = view["keys"].get(entity)
        if key is None:
            continue
        due = key.created_at < since or key.type != key_type
        stale = view["daemons"][daemon] < key.created_at
        if daemon == view["active"] and (due or stale):
            return Step("fail", daemon, f"fail over from {daemon} before its key is rotated")
        if due:
            return Step("rotate", entity, f"rotate the key of {entity} to type {key_type}")
        if stale:
            return Step("redeploy", daemon, f"redeploy {daemon} with its new key")
    for entity in ["client.admin", *clients]:
        if view["keys"][entity].created_at < since:
            return Step("rotate", entity, f"rotate the key of {entity}")
    return None


def faults(view: dict[str, Any], clients: list[str]) -> list[str]:
    """Why keys must not be rotated, one message each."""
    known = sorted(entity for entity in view["keys"] if entity.startswith("client."))
    found = [
        f"{name}: does not exist, the cluster has {', '.join(known)}. Correct op_rotate_ceph_keys_clients."
        for name in clients
        if name not in view["keys"]
    ]
    found += [
        f"{name}: belongs to a daemon or the administrator and is rotated anyway. List clients only."
        for name in clients
        if name == "client.admin" or name in {entity_of(daemon) for daemon in [*view["daemons"], *view["unmanaged"]]}
    ]
    if view["standbys"] < 1:
        found.append(
            "No standby manager, so the key of the active one cannot be rotated. Start the second manager first."
        )
    return found


def failover_faults(view: dict[str, Any], daemon: str) -> list[str]:
    """Why the failover from a manager is not complete."""
    if view["active"] in ("mgr.", daemon):
        return ["no other manager is active"]
    return [] if view["standbys"] else ["no standby manager"]


def restart_faults(view: dict[str, Any], daemon: str) -> list[str]:
    """Why a daemon does not run with its newest key."""
    key: Key = view["keys"][entity_of(daemon)]
    return [] if view["daemons"].get(daemon, 0.0) >= key.created_at else ["not restarted yet"]
