"""One database on several hosts: who takes the writes, who follows, and what has to be done to change that.

Everything here is pure. A host's `state` is what its server says of itself (roles/postgresql/vars).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .postgresql import PostgresqlError

Json = Mapping[str, Any]

ROLE = "standby"
"""The account by which standbys follow; it may replicate and read what pg_rewind reads, nothing else."""
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
    """The one host of the database that is no standby by the inventory."""
    found = [host for host in hosts if not hostvars[host].get("postgresql_standby", False)]
    if len(found) != 1:
        raise PostgresqlError(
            f"{', '.join(found) or 'None'} of {', '.join(hosts)} would take the writes; exactly one host may be "
            "without postgresql_standby: true in hosts.yml."
        )
    return found[0]


def slot(host: str) -> str:
    """A slot's name has no dashes; by its beginning it is known as one of the platform's."""
    return SLOT_PREFIX + re.sub(r"[^a-z0-9_]", "_", host.lower())


def conninfo(name: str, address: str, files: Mapping[str, str], application: str = "", database: str = "") -> str:
    """How a host comes to a peer: by its address, believing its name. The password is in a file."""
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
    follows: str,
    volume_gb: int,
    files: Mapping[str, str],
    slot_keep_gb: int = 0,
    synchronous: bool = False,
) -> dict[str, str]:
    """Settings of a member of such a database; none for one that is alone.

    `follows` is the peer that takes the writes, empty on that one itself.
    """
    if not peers:
        return {}
    if follows and follows not in peers:
        raise PostgresqlError(f"{host} cannot follow {follows}, which is none of {', '.join(peers)}.")
    kept = slot_keep_gb * 1024 or max(1024, volume_gb * 1024 // 5)
    if kept > volume_gb * 1024 // 2:
        raise PostgresqlError(
            f"A slot that keeps {kept} MB of WAL may fill the volume of {volume_gb} GB; give it half of it at most "
            "(postgresql_slot_keep_gb)."
        )
    found = {
        # Past it a standby that is away has to be made anew, and the primary goes on.
        "max_slot_wal_keep_size": f"{kept}MB",
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
    }
    if follows:
        found["primary_conninfo"] = conninfo(follows, peers[follows], files, application=host)
        found["primary_slot_name"] = slot(host)
    elif synchronous:
        names = ", ".join(f'"{peer}"' for peer in peers)
        found["synchronous_standby_names"] = f"ANY 1 ({names})"
        # Acknowledged is what lies on two disks.
        found["synchronous_commit"] = "on"
    return found


def lacking_slots(peers: Mapping[str, str], state: Json, standby: bool) -> list[dict[str, str]]:
    """What has to happen with slots, in this order, each with its name and its state afterwards.

    A primary has one for each peer; one that was cut off at its cap is of no use and made anew. A standby has none, and
    those of hosts that have gone are dropped: they would keep WAL that nobody fetches. Other people's are left alone.
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


def follower_findings(peers: Mapping[str, str], state: Json, synchronous: bool) -> list[str]:
    """Sentences about standbys that a primary should have and has not."""
    streaming = {
        entry["name"]: entry["sync"] for entry in state.get("followers") or () if entry["state"] == "streaming"
    }
    found = []
    missing = [peer for peer in peers if peer not in streaming]
    if missing and state.get("synchronous") and not {"sync", "quorum"} & set(streaming.values()):
        found.append(
            f"writes wait, because {', '.join(missing)} does not confirm them and postgresql_synchronous is true. "
            "Bring it back, or set postgresql_synchronous to false and run playbooks/postgresql.yml to go on without "
            "it: from then on the loss of this host may cost acknowledged writes"
        )
    elif missing:
        found.append(f"{', '.join(missing)} does not follow; what is written meanwhile is on this host alone")
    elif synchronous and not state.get("synchronous"):
        found.append("no standby is waited for yet; the next run of playbooks/postgresql.yml sees to it")
    return found


def ahead(target: str, received: Mapping[str, str]) -> list[str]:
    """Sentences about standbys that have, or may have, WAL that `target` lacks; `received` is each one's place, X/Y."""
    if not received.get(target):
        return [f"{target} does not say how far it came"]
    found = []
    for name, place in received.items():
        if not place:
            found.append(f"{name} does not say how far it came, and may have more")
        elif _position(place) > _position(received[target]):
            found.append(f"{name} has WAL up to {place}, {target} up to {received[target]}")
    return found


def _position(place: str) -> int:
    high, low = place.strip().split("/")
    return (int(high, 16) << 32) + int(low, 16)


def handover(target: str, old: str, unit: str, control: str, received: str) -> dict[str, Any]:
    """What powering off the primary `old` costs: with `faults`, sentences, it must not be done; `loss` is what is lost.

    `unit` is systemd's state of its server before the stop, empty when the host cannot be reached; `control` is what
    pg_controldata prints there after it; `received` is the WAL position of `target`.
    """
    cluster = re.search(r"^Database cluster state: +(.+)$", control, re.M)
    position = re.search(r"^Latest checkpoint location: +(\S+)$", control, re.M)
    if cluster and position and cluster[1] == "shut down":
        # The last record is the checkpoint of the shutdown, which a standby that has all of it has received.
        faults = ahead(target, {target: received, old: position[1]})
        return {"faults": faults, "loss": "; ".join(faults) or f"nothing, {target} has all WAL of {old}"}
    reason = f"{old} is off or cannot be reached"
    if unit:
        seen = f"its control file says {cluster[1]!r}" if cluster else "its control file cannot be read"
        reason = f"PostgreSQL on {old} was {unit} and is not shut down in order, {seen}"
    loss = (
        f"what {old} acknowledged after WAL position {received or 'unknown'} and had not sent, or nothing if it waited "
        f"for {target} (postgresql_synchronous); {reason}"
    )
    return {"faults": [reason] if unit not in ("", "inactive", "failed") else [], "loss": loss}


def promotion(target: str, old: str, state: Json, server: Json, fenced_by_hand: str = "") -> dict[str, Any]:
    """What promoting `target` in the place of `old` needs; `faults` are sentences, and then nothing may be done.

    `state` is the target's; `server` what the cloud says of the old primary: known, listed, status. A cloud that
    lists the target and not the old primary tells that the latter is gone.
    """
    if state.get("recovering") is False:
        steps = [f"finish what promoting {target} leaves to do"]
        return {"action": "finish", "fence": False, "steps": steps, "faults": []}
    faults = []
    if state.get("recovering") is None:
        faults.append(f"PostgreSQL on {target} does not answer; a server that does not run cannot be promoted")
    if not server.get("known") and fenced_by_hand != old:
        faults.append(
            f"{old} cannot be fenced, because the cloud does not tell of it ({server.get('reason') or 'no answer'}). "
            "While it may still run, two servers would take writes. Make certain that it is off and stays off, and say "
            f"so with -e op_promote_postgresql_fenced={old}"
        )
    fence = bool(server.get("known") and server.get("listed") and server.get("status") != "off")
    steps = (
        [
            f"stop PostgreSQL on {old} in order, if the host can be reached",
            f"power off {old} through the cloud, and see that it is off",
        ]
        if fence
        else []
    )
    steps.append(f"promote {target}, which has received WAL up to {state.get('received') or 'an unknown place'}")
    return {"action": "refuse" if faults else "promote", "fence": fence, "steps": steps, "faults": faults}
