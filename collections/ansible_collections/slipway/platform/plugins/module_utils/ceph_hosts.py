"""When an OSD may be destroyed, a lost host replaced and a host drained: reads, and pure decisions."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import ceph_health
from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# States of a placement group without recovery in progress while an OSD is down.
SETTLED = {"active", "clean", "undersized", "degraded", "scrubbing", "deep", "snaptrim", "snaptrim_wait"}


def read_osd(cluster: Cluster, osd: int) -> dict[str, Any]:
    """One OSD, and the status of its cluster."""
    view = ceph_health.read(cluster, [])
    answer = cluster.execute([["osd", "find", str(osd)]], json_wanted=True, strict=False)[0]
    location = cluster.parsed(["osd", "find"], answer["output"]) if answer["code"] == 0 else {}
    # With --format json, safe-to-destroy always exits with 0 (20.2.4).
    answers = cluster.execute([["osd", "safe-to-destroy", str(osd)], ["osd", "ok-to-stop", str(osd)]], strict=False)
    return {
        "health": view,
        "host": location.get("host") or location.get("crush_location", {}).get("host", ""),
        "uuid": location.get("osd_fsid", ""),
        "safe_to_destroy": answers[0]["code"] == 0,
        "ok_to_stop": answers[1]["code"] == 0,
        "message": answers[0]["message"].strip(),
    }


def plan_destroy(view: dict[str, Any], osd: int) -> tuple[str, str]:
    """Action for an OSD whose disk is replaced: none, destroy, wait or refuse; and the reason.

    With as many hosts as copies no data can move to another host, so safe-to-destroy never becomes true, and
    `orch osd rm` would wait forever. The condition then is that every other copy is available without recovery.
    """
    health = view["health"]
    osds = health["osds"]
    own = osds.get(str(osd))
    if own is None:
        names = ", ".join(f"osd.{name}" for name in sorted(osds, key=int)) or "none"
        return "refuse", f"osd.{osd} does not exist; the cluster has {names}"
    if "destroyed" in own["states"]:
        return "none", f"osd.{osd} is already destroyed, its id is reserved"
    if view["safe_to_destroy"]:
        return "destroy", f"no placement group needs osd.{osd}"
    others = sorted(
        f"osd.{name}" for name, other in osds.items() if name != str(osd) and other["in"] and not other["up"]
    )
    if others:
        return "wait", f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} down as well"
    groups = health["placement_groups"]
    if own["up"]:
        unclean = ceph_health.unclean(groups)
        if unclean or not view["ok_to_stop"]:
            states = ", ".join(f"{count} {state}" for state, count in sorted(unclean.items())) or view["message"]
            return "wait", f"osd.{osd} is up and needed: {states}"
        return "destroy", f"every placement group has all other copies without osd.{osd}"
    unsettled = {state: count for state, count in groups.items() if not _settled(state)}
    if unsettled:
        states = ", ".join(f"{count} {state}" for state, count in sorted(unsettled.items()))
        return "wait", f"placement groups are not recovered without osd.{osd}: {states}"
    return "destroy", f"every placement group is active without osd.{osd}"


def _settled(state: str) -> bool:
    tokens = set(state.split("+"))
    return "active" in tokens and tokens <= SETTLED


COMMANDS = [["orch", "host", "ls"], ["orch", "ps"], ["osd", "tree"], ["osd", "pool", "ls", "detail"], ["mon", "dump"]]


def read_hosts(cluster: Cluster) -> dict[str, Any]:
    """The hosts, their daemons, and the copies that the pools require."""
    hosts, daemons, tree, pools, monitors = cluster.batch(COMMANDS)
    nodes = {node["id"]: node for node in tree["nodes"]}
    return {
        "health": ceph_health.read(cluster, []),
        "hosts": {
            host["hostname"]: {
                "address": host["addr"],
                "labels": sorted(host.get("labels", [])),
                "offline": (host.get("status") or "").lower() == "offline",
            }
            for host in hosts
        },
        "daemons": [
            {
                "name": f"{daemon['daemon_type']}.{daemon['daemon_id']}",
                "kind": daemon["daemon_type"],
                "host": daemon["hostname"],
                "running": daemon.get("status") == 1,
            }
            for daemon in daemons
        ],
        "osds": {
            node["name"]: sorted(nodes[child]["name"] for child in node["children"] if child in nodes)
            for node in tree["nodes"]
            if node["type"] == "host"
        },
        "copies": max((pool["size"] for pool in pools), default=0),
        "monitors": sorted(entry["name"] for entry in monitors["mons"]),
    }


def lost_faults(view: dict[str, Any], host: str) -> list[str]:
    """Why a host must not be treated as lost, one message each."""
    found = []
    if host not in view["hosts"]:
        return [f"{host}: not a host of this cluster, which has {', '.join(sorted(view['hosts']))}."]
    up = [name for name in view["osds"].get(host, []) if view["health"]["osds"][name.removeprefix("osd.")]["up"]]
    if up:
        found.append(f"{host}: it is not lost, {', '.join(up)} {'is' if len(up) == 1 else 'are'} up.")
    if host in view["health"]["quorum"]:
        found.append(f"{host}: it is not lost, its monitor is in the quorum.")
    rest = [name for name in view["monitors"] if name != host]
    if host in view["monitors"] and len(view["health"]["quorum"]) <= len(rest) // 2:
        found.append(
            f"{host}: without its monitor there is no majority (quorum: {', '.join(view['health']['quorum'])})."
        )
    return found


def drain_faults(view: dict[str, Any], host: str, members: list[str]) -> list[str]:
    """Why a host must not be drained, one message each; `members` are the remaining hosts."""
    if host not in view["hosts"]:
        return []
    found = []
    remaining = sorted(name for name in view["hosts"] if name != host and view["osds"].get(name))
    if view["osds"].get(host) and len(remaining) < view["copies"]:
        found.append(
            f"{host}: cannot be drained, {len(remaining)} hosts with OSDs would remain and pools need "
            f"{view['copies']} copies on different hosts. Add a host first (add_ceph_host.yml)."
        )
    offline = sorted(name for name, entry in view["hosts"].items() if entry["offline"])
    if offline:
        found.append(f"{', '.join(offline)}: offline. Start the host first, or replace it.")
    if host in view["monitors"] and len(members) < 3 <= len(view["monitors"]):
        found.append(
            f"{host}: has one of three monitors, and no other host is left for it. "
            "Add a host first (add_ceph_host.yml)."
        )
    return found


def remaining_daemons(view: dict[str, Any], host: str) -> list[str]:
    """Daemons that are still on a host."""
    return sorted(daemon["name"] for daemon in view["daemons"] if daemon["host"] == host)
