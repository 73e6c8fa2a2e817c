"""When an OSD may be given up, a lost host be forgotten and a host be drained: reading, and decisions that are pure."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import ceph_health
from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# States of a placement group that has nothing left to do but to wait for the OSD that is away.
SETTLED = {"active", "clean", "undersized", "degraded", "scrubbing", "deep", "snaptrim", "snaptrim_wait"}


def read_osd(cluster: Cluster, osd: int) -> dict[str, Any]:
    """One OSD, and the cluster around it."""
    view = ceph_health.read(cluster, [])
    found = cluster.ask([["osd", "find", str(osd)]], json_wanted=True, strict=False)[0]
    place = cluster.parsed(["osd", "find"], found["output"]) if found["code"] == 0 else {}
    # Asked for JSON, safe-to-destroy answers 0 whatever it finds (seen in 20.2.4).
    answers = cluster.ask([["osd", "safe-to-destroy", str(osd)], ["osd", "ok-to-stop", str(osd)]], strict=False)
    return {
        "health": view,
        "host": place.get("host") or place.get("crush_location", {}).get("host", ""),
        "uuid": place.get("osd_fsid", ""),
        "safe_to_destroy": answers[0]["code"] == 0,
        "ok_to_stop": answers[1]["code"] == 0,
        "sentence": answers[0]["message"].strip(),
    }


def retirement(view: dict[str, Any], osd: int) -> tuple[str, str]:
    """What may be done with an OSD whose disk goes: none, destroy, wait or refuse; and the reason.

    With as many hosts as copies nothing can move elsewhere, so safe-to-destroy stays false for ever, and the
    orchestrator's own removal would wait as long. What is asked then is whether every other copy is there and settled.
    """
    health = view["health"]
    osds = health["osds"]
    own = osds.get(str(osd))
    if own is None:
        names = ", ".join(f"osd.{name}" for name in sorted(osds, key=int)) or "none"
        return "refuse", f"there is no osd.{osd} in this cluster; there are {names}"
    if "destroyed" in own["states"]:
        return "none", f"osd.{osd} is given up already, its place is kept"
    if view["safe_to_destroy"]:
        return "destroy", f"no placement group needs osd.{osd}"
    others = sorted(
        f"osd.{name}" for name, other in osds.items() if name != str(osd) and other["in"] and not other["up"]
    )
    if others:
        return "wait", f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} down too"
    groups = health["placement_groups"]
    if own["up"]:
        unclean = ceph_health.unclean(groups)
        if unclean or not view["ok_to_stop"]:
            states = ", ".join(f"{count} {state}" for state, count in sorted(unclean.items())) or view["sentence"]
            return "wait", f"osd.{osd} runs and is needed: {states}"
        return "destroy", f"every placement group has its other copies without osd.{osd}"
    unsettled = {state: count for state, count in groups.items() if not _settled(state)}
    if unsettled:
        states = ", ".join(f"{count} {state}" for state, count in sorted(unsettled.items()))
        return "wait", f"not every placement group has settled without osd.{osd}: {states}"
    return "destroy", f"every placement group serves from its other copies without osd.{osd}"


def _settled(state: str) -> bool:
    tokens = set(state.split("+"))
    return "active" in tokens and tokens <= SETTLED


QUESTIONS = [["orch", "host", "ls"], ["orch", "ps"], ["osd", "tree"], ["osd", "pool", "ls", "detail"], ["mon", "dump"]]


def read_hosts(cluster: Cluster) -> dict[str, Any]:
    """The hosts, what runs on each, and what the pools ask for."""
    hosts, daemons, tree, pools, monitors = cluster.batch(QUESTIONS)
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


def lost(view: dict[str, Any], host: str) -> list[str]:
    """Why a host must not be taken for lost, one sentence each."""
    found = []
    if host not in view["hosts"]:
        return [f"{host} is no host of this cluster; there are {', '.join(sorted(view['hosts']))}."]
    up = [name for name in view["osds"].get(host, []) if view["health"]["osds"][name.removeprefix("osd.")]["up"]]
    if up:
        found.append(f"{', '.join(up)} of {host} {'runs' if len(up) == 1 else 'run'}: it is not lost.")
    if host in view["health"]["quorum"]:
        found.append(f"The monitor of {host} is in the quorum: it is not lost.")
    rest = [name for name in view["monitors"] if name != host]
    if host in view["monitors"] and len(view["health"]["quorum"]) <= len(rest) // 2:
        found.append(f"Too few of the other monitors answer ({', '.join(view['health']['quorum'])}).")
    return found


def undrainable(view: dict[str, Any], host: str, members: list[str]) -> list[str]:
    """Why a host must not be drained, one sentence each; `members` are the hosts that stay."""
    if host not in view["hosts"]:
        return []
    found = []
    staying = sorted(name for name in view["hosts"] if name != host and view["osds"].get(name))
    if view["osds"].get(host) and len(staying) < view["copies"]:
        found.append(
            f"Without {host} {len(staying)} hosts with OSDs are left, and pools ask for {view['copies']} copies, "
            "each on another host: its data has nowhere to go. Add a host first (add_ceph_host.yml)."
        )
    offline = sorted(name for name, entry in view["hosts"].items() if entry["offline"])
    if offline:
        found.append(f"{', '.join(offline)} cannot be reached; bring that back first, or replace it.")
    if host in view["monitors"] and len(members) < 3 <= len(view["monitors"]):
        found.append(f"{host} carries one of three monitors and no other host is there to take it over.")
    return found


def left_on(view: dict[str, Any], host: str) -> list[str]:
    """Daemons that a host still carries."""
    return sorted(daemon["name"] for daemon in view["daemons"] if daemon["host"] == host)
