"""Which keys of a cluster are due for a new one, and in which order: reading, and the plan, which is pure.

The time at which a key was made is part of the key, so a run that was killed needs no notes: keys younger than the run
asked for are done, and a daemon that started before its key was made has not learned it yet.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

TYPES = {1: "aes", 2: "aes256k"}

# Standby managers come first, then the active one by failing over; OSDs one at a time; what serves clients last.
ORDER = ("mgr", "mon", "osd", "mds", "rgw", "crash", "ceph-exporter")
# Of these a daemon's name is the entity's; the others are clients, client.<name of the daemon>.
SERVICES = ("mgr", "osd", "mds")


@dataclass(frozen=True)
class Key:
    """Type and time of making of a key, never the key."""

    type: str
    made_at: float


@dataclass(frozen=True)
class Step:
    """What comes next: `rotate` an entity's key, `redeploy` a daemon that does not know its key, `fail` over."""

    action: str
    name: str
    sentence: str


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
    # What is scheduled for a daemon of an unmanaged service is never done (seen in 20.2.4), so it cannot learn a key.
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
        "left": sorted(
            f"{daemon['daemon_type']}.{daemon['daemon_id']}"
            for daemon in daemons
            if daemon["daemon_type"] in ORDER and daemon.get("service_name") in unmanaged
        ),
    }


def next_step(view: dict[str, Any], *, since: float, key_type: str, clients: list[str]) -> Step | None:
    """The first thing that is left to do; None when every key asked for is younger than `since`."""
    ordered = sorted(view["daemons"], key=lambda name: (ORDER.index(name.split(".")[0]), name == view["active"], name))
    for daemon in ordered:
        entity = entity_of(daemon)
        key = view["keys"].get(entity)
        if key is None:
            continue
        due = key.made_at < since or key.type != key_type
        stale = view["daemons"][daemon] < key.made_at
        if daemon == view["active"] and (due or stale):
            return Step("fail", daemon, f"{daemon} hands over, to get a new key")
        if due:
            return Step("rotate", entity, f"{entity} gets a new key of type {key_type}")
        if stale:
            return Step("redeploy", daemon, f"{daemon} learns its new key")
    for entity in ["client.admin", *clients]:
        if view["keys"][entity].made_at < since:
            return Step("rotate", entity, f"{entity} gets a new key")
    return None


def faults(view: dict[str, Any], clients: list[str]) -> list[str]:
    """Why keys must not be rotated, one sentence each."""
    known = sorted(entity for entity in view["keys"] if entity.startswith("client."))
    found = [f"There is no {name}; there are {', '.join(known)}." for name in clients if name not in view["keys"]]
    found += [
        f"{name} belongs to a daemon or to the administrator and is rotated in any case; name clients only."
        for name in clients
        if name == "client.admin" or name in {entity_of(daemon) for daemon in [*view["daemons"], *view["left"]]}
    ]
    if view["standbys"] < 1:
        found.append("No manager stands by, so the active one could get no new key. Bring the second one back first.")
    return found
