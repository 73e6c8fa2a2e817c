"""Replication: the primary, its standbys, and the decisions of a failover or switchover.

Everything here is pure. A host's `state` is the state of its server (module_utils/postgresql_state.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .postgresql import PostgresqlError

Json = Mapping[str, Any]

ROLE = "standby"
"""The replication role of standbys; it may replicate and call the functions that pg_rewind needs."""
SLOT_PREFIX = "slipway_"
CONNECTION = {
    "user": ROLE,
    "port": "5432",
    "sslmode": "verify-full",
    "ssl_min_protocol_version": "TLSv1.3",
    "channel_binding": "require",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}


def primary(hostvars: Mapping[str, Json], hosts: Sequence[str]) -> str:
    """The one host of the database that the inventory does not declare a standby."""
    found = [host for host in hosts if not hostvars[host].get("postgresql_standby", False)]
    if len(found) != 1:
        raise PostgresqlError(
            f"group postgresql: {', '.join(found) or 'none'} of {', '.join(hosts)} would be the primary. Set "
            "postgresql_standby: true in hosts.yml for all hosts but exactly one host."
        )
    return found[0]


def slot(host: str) -> str:
    """The slot of a standby: names of slots have no dashes, and the prefix marks the platform's own."""
    return SLOT_PREFIX + re.sub(r"[^a-z0-9_]", "_", host.lower())


def conninfo(name: str, address: str, files: Mapping[str, str], application: str = "", database: str = "") -> str:
    """The connection string to a peer: its address, and the name to verify. The password is in a file."""
    words = {"host": name, "hostaddr": address} | CONNECTION
    words |= {"sslrootcert": files["authority"], "passfile": files["password"]}
    if application:
        words["application_name"] = application
    if database:
        words["dbname"] = database
    return " ".join(f"{key}={value}" for key, value in words.items())


def settings(
    host: str,
    peers: Mapping[str, str],
    upstream: str,
    volume_gb: int,
    files: Mapping[str, str],
    slot_keep_gb: int = 0,
    synchronous: bool = False,
) -> dict[str, str]:
    """Replication settings of a host; none without peers.

    `upstream` is the primary that a standby streams from, empty on the primary itself.
    """
    if not peers:
        return {}
    if upstream and upstream not in peers:
        raise PostgresqlError(f"{host} cannot stream from {upstream}, which is not one of {', '.join(peers)}.")
    retained_mb = slot_keep_gb * 1024 or max(1024, volume_gb * 1024 // 5)
    if retained_mb > volume_gb * 1024 // 2:
        raise PostgresqlError(
            f"{host}: a slot that retains {retained_mb} MB of WAL may fill the volume of {volume_gb} GB. Set "
            "postgresql_slot_keep_gb to half of it at most."
        )
    found = {
        # Past this limit the slot is lost, and its standby has to be copied again; the primary stays available.
        "max_slot_wal_keep_size": f"{retained_mb}MB",
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
    }
    if upstream:
        found["primary_conninfo"] = conninfo(upstream, peers[upstream], files, application=host)
        found["primary_slot_name"] = slot(host)
    elif synchronous:
        names = ", ".join(f'"{peer}"' for peer in peers)
        found["synchronous_standby_names"] = f"ANY 1 ({names})"
        # A write is acknowledged when it is on two disks.
        found["synchronous_commit"] = "on"
    return found


def slot_drift(peers: Mapping[str, str], state: Json, standby: bool) -> list[dict[str, str]]:
    """Changes of replication slots, in order, each with its name and its state afterwards.

    A primary has one for each peer; a lost one is dropped and created again. A standby has none, and slots of removed
    hosts are dropped, because they would retain WAL. Slots without the platform's prefix are not changed.
    """
    there = {
        entry["name"]: entry
        for entry in state.get("slots") or ()
        if entry["type"] == "physical" and entry["name"].startswith(SLOT_PREFIX)
    }
    wanted = [] if standby else [slot(peer) for peer in peers]
    found = [
        {"name": name, "state": "absent"}
        for name, entry in sorted(there.items())
        if not entry["active"] and (name not in wanted or entry["wal_status"] == "lost")
    ]
    gone = {entry["name"] for entry in found}
    return found + [{"name": name, "state": "present"} for name in wanted if name not in there or name in gone]


def standby_findings(peers: Mapping[str, str], state: Json, synchronous: bool) -> list[str]:
    """Findings about standbys that are declared and do not stream."""
    streaming = {entry["name"]: entry["sync"] for entry in state.get("standbys") or () if entry["state"] == "streaming"}
    found = []
    missing = [peer for peer in peers if peer not in streaming]
    if missing and state.get("synchronous") and not {"sync", "quorum"} & set(streaming.values()):
        found.append(
            f"writes block: {', '.join(missing)} does not confirm them, and postgresql_synchronous is true. Start the "
            "standby, or set postgresql_synchronous to false and run playbooks/postgresql.yml; then the loss of this "
            "host may lose acknowledged writes"
        )
    elif missing:
        found.append(f"standby {', '.join(missing)} does not stream; new writes are on this host only")
    elif synchronous and not state.get("synchronous"):
        found.append("synchronous replication is not configured yet. Run playbooks/postgresql.yml again")
    return found


def ahead(target: str, received: Mapping[str, str]) -> list[str]:
    """Standbys that have, or may have, WAL that `target` lacks; `received` is the WAL position of each, X/Y."""
    if not received.get(target):
        return [f"the WAL position of {target} is unknown"]
    found = []
    for name, position in received.items():
        if not position:
            found.append(f"the WAL position of {name} is unknown, and it may have more WAL")
        elif _parse_lsn(position) > _parse_lsn(received[target]):
            found.append(f"{name} has WAL up to {position}, {target} up to {received[target]}")
    return found


def _parse_lsn(position: str) -> int:
    high, low = position.strip().split("/")
    return (int(high, 16) << 32) + int(low, 16)


def promotion_loss(target: str, old: str, unit: str, control: str, received: str) -> dict[str, Any]:
    """The loss of a power-off of the primary `old`: with `faults` it must not be powered off; `loss` is what is lost.

    `unit` is the ActiveState of its server before the stop, empty when the host is unreachable; `control` is the output
    of pg_controldata after the stop; `received` is the WAL position of `target`.
    """
    cluster = re.search(r"^Database cluster state: +(.+)$", control, re.M)
    position = re.search(r"^Latest checkpoint location: +(\S+)$", control, re.M)
    if cluster and position and cluster[1] == "shut down":
        # The last record is the shutdown checkpoint; a standby that has all WAL has received it.
        faults = ahead(target, {target: received, old: position[1]})
        return {"faults": faults, "loss": "; ".join(faults) or f"nothing, {target} has all WAL of {old}"}
    reason = f"{old} is off or unreachable"
    if unit:
        evidence = f"its control file has the state {cluster[1]!r}" if cluster else "its control file cannot be read"
        reason = f"PostgreSQL on {old} was {unit} and is not shut down cleanly, {evidence}"
    loss = (
        f"writes that {old} acknowledged after WAL position {received or 'unknown'} and had not sent, or nothing if "
        f"{target} was its synchronous standby (postgresql_synchronous); {reason}"
    )
    return {"faults": [reason] if unit not in ("", "inactive", "failed") else [], "loss": loss}


def promotion(target: str, old: str, state: Json, server: Json, fenced_by_hand: str = "") -> dict[str, Any]:
    """The plan of a promotion of `target` in place of `old`; with `faults` nothing may be done.

    `state` is the target's; `server` is the old primary in the cloud API: known, listed, status. When the cloud lists
    the target and not the old primary, the old primary does not exist any more.
    """
    if state.get("recovering") is False:
        steps = [f"complete the promotion of {target}"]
        return {"action": "finish", "fence": False, "steps": steps, "faults": []}
    faults = []
    if state.get("recovering") is None:
        faults.append(f"{target}: PostgreSQL does not answer. Start it before the promotion")
    if not server.get("known") and fenced_by_hand != old:
        faults.append(
            f"{old} cannot be fenced, because the cloud API does not list it ({server.get('reason') or 'no answer'}). "
            "If it still ran, a promotion would be a split-brain. Power it off by other means, make sure that it stays "
            f"off, and confirm with -e op_promote_postgresql_fenced={old}"
        )
    fence = bool(server.get("known") and server.get("listed") and server.get("status") != "off")
    steps = (
        [
            f"stop PostgreSQL on {old} cleanly, if the host is reachable",
            f"power off {old} through the cloud API, and verify that it is off",
        ]
        if fence
        else []
    )
    steps.append(f"promote {target}, which has received WAL up to {state.get('received') or 'an unknown position'}")
    return {"action": "reject" if faults else "promote", "fence": fence, "steps": steps, "faults": faults}
