"""Whether a cluster exists, which host administers it, and whether to bootstrap it: pure decisions from host state.

No marker file records a bootstrap. A cluster exists when its monitors answer; when none answers, the folders and the
disks of all members decide, and any doubt is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

QUORATE = ("leader", "peon")
BOOTSTRAP_DAEMONS = ("mon", "mgr")
"""Kinds of daemons that `cephadm bootstrap` creates before the cluster can store anything."""

State = Mapping[str, Any]


def bootstrap_plan(
    states: Mapping[str, State],
    fsid: str,
    members: Sequence[str],
    status: Mapping[str, Any] | None = None,
    disks_in_use: Sequence[str] = (),
) -> dict[str, Any]:
    """The decision: `admin_host`, `reachable`, `bootstrap_needed`, `hosts_to_clean`, `monitors_to_start`, `faults`.

    `status` is what ceph_status.py read from the cluster, if it was reachable; `disks_in_use` names members with OSD
    devices of this cluster. `hosts_to_clean` hold the remains of an interrupted bootstrap.
    """
    plan: dict[str, Any] = {
        "admin_host": members[0],
        "reachable": False,
        "bootstrap_needed": False,
        "hosts_to_clean": [],
        "monitors_to_start": [],
        "faults": [],
    }
    daemons = {name: list(states[name]["clusters"].get(fsid, ())) for name in states}
    plan["faults"] += _foreign(states, fsid)
    quorate = [name for name in members if name in states and states[name]["monitor"]["state"] in QUORATE]
    if quorate:
        plan |= {"admin_host": quorate[0], "reachable": True}
        if status is not None and not _permanent(status):
            hosts = [name for name, held in daemons.items() if held]
            if hosts == quorate[:1]:
                plan |= {"bootstrap_needed": True, "hosts_to_clean": hosts, "reachable": False}
        return plan
    left_out = [name for name in members if name not in states]
    with_monitor = [name for name in members if name in states and states[name]["monitor"]["exists"]]
    holders = {name: _kinds(held) for name, held in daemons.items() if _kinds(held) - set(BOOTSTRAP_DAEMONS)}
    deployed = [name for name in with_monitor if states[name]["monitor"]["deployed"]]
    if deployed:
        plan["monitors_to_start"] = deployed
        plan["faults"].append(_no_quorum(states, members))
    elif holders or disks_in_use:
        plan["faults"].append(_without_monitors(sorted({*holders, *disks_in_use})))
    elif left_out:
        plan["faults"].append(
            f"{', '.join(left_out)}: not in this run, and no other member has a monitor. Run for all members, so that "
            "no second cluster is bootstrapped beside an existing one."
        )
    else:
        # A bootstrap that was interrupted before its monitor could start leaves folders without data.
        plan |= {
            "bootstrap_needed": True,
            "hosts_to_clean": [name for name in members if fsid in states[name]["clusters"]],
        }
    return plan


def _permanent(status: Mapping[str, Any]) -> bool:
    """Whether a cluster that answers completed its bootstrap, or holds anything that must not be lost."""
    return bool(status["bootstrapped"] or status["osds"] or len(status["monitors"]) > 1)


def _kinds(daemons: Sequence[str]) -> set[str]:
    return {daemon.partition(".")[0] for daemon in daemons}


def _foreign(states: Mapping[str, State], fsid: str) -> list[str]:
    return [
        f"{name}: holds {', '.join(daemons)} of the cluster {other}, but ceph_fsid is {fsid}. Take the host out of the "
        "group, or correct ceph_fsid in group_vars/all/platform.yml. Nothing was changed."
        for name, state in sorted(states.items())
        for other, daemons in sorted(state["clusters"].items())
        if other != fsid and daemons
    ]


def _no_quorum(states: Mapping[str, State], members: Sequence[str]) -> str:
    reasons = []
    for name in members:
        if name not in states:
            reasons.append(f"{name}: not in this run")
        elif states[name]["monitor"]["exists"]:
            reasons.append(f"{name}: {states[name]['monitor']['state'] or 'monitor down'}")
    return (
        f"The monitors have no quorum ({'; '.join(reasons)}). Start the hosts that are down, read "
        "journalctl -u 'ceph-*@mon.*' on them, and run again. Nothing was changed."
    )


def _without_monitors(holders: Sequence[str]) -> str:
    return (
        f"No host has a monitor of this cluster, but {', '.join(holders)} holds data of it. Restore the monitor store "
        "first (from a backup, or from the OSDs). No new cluster is bootstrapped beside it. Nothing was changed."
    )
