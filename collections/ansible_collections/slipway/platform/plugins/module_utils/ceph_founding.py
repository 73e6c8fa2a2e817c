"""Whether there is a cluster, who speaks for it, and whether it may be founded: pure decisions from what hosts show.

No file remembers that a cluster was founded. It is there when its monitors say so; where they do not speak, the folders
and the disks of all members decide, and every doubt ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

QUORATE = ("leader", "peon")
OF_A_FOUNDING = ("mon", "mgr")
"""Kinds of daemons that a founding makes before the cluster can do anything."""

State = Mapping[str, Any]


def founding(
    states: Mapping[str, State],
    fsid: str,
    members: Sequence[str],
    view: Mapping[str, Any] | None = None,
    disks_in_use: Sequence[str] = (),
) -> dict[str, Any]:
    """What follows: `voice`, `found` (whether to found it), `clean` (whose remains to remove first), `wake`, `faults`.

    `view` is what the cluster said of itself when it was asked; `disks_in_use` names members with disks of it.
    """
    plan: dict[str, Any] = {
        "voice": members[0],
        "found": False,
        "clean": [],
        "wake": [],
        "answers": False,
        "faults": [],
    }
    daemons = {name: list(states[name]["clusters"].get(fsid, ())) for name in states}
    plan["faults"] += _foreign(states, fsid)
    quorate = [name for name in members if name in states and states[name]["monitor"]["state"] in QUORATE]
    if quorate:
        plan |= {"voice": quorate[0], "answers": True}
        if view is not None and not _lasting(view):
            alone = [name for name, held in daemons.items() if held]
            if alone == quorate[:1]:
                plan |= {"found": True, "clean": alone, "answers": False}
        return plan
    left_out = [name for name in members if name not in states]
    with_monitor = [name for name in members if name in states and states[name]["monitor"]["there"]]
    holders = {name: _kinds(held) for name, held in daemons.items() if _kinds(held) - set(OF_A_FOUNDING)}
    deployed = [name for name in with_monitor if states[name]["monitor"]["deployed"]]
    if deployed:
        plan["wake"] = deployed
        plan["faults"].append(_no_majority(states, members))
    elif holders or disks_in_use:
        plan["faults"].append(_without_monitors(sorted({*holders, *disks_in_use})))
    elif left_out:
        plan["faults"].append(
            f"No member of this run has a monitor, and {', '.join(left_out)} was not part of it; run for all members, "
            "so that no second cluster is founded beside one that nobody looked at."
        )
    else:
        # Folders of a founding that died before its monitor could run hold nothing.
        plan |= {"found": True, "clean": [name for name in members if fsid in states[name]["clusters"]]}
    return plan


def _lasting(view: Mapping[str, Any]) -> bool:
    """Whether a cluster that answers was founded to the end, or holds anything that must not be lost."""
    return bool(view["founded"] or view["osds"] or len(view["monitors"]) > 1)


def _kinds(daemons: Sequence[str]) -> set[str]:
    return {daemon.partition(".")[0] for daemon in daemons}


def _foreign(states: Mapping[str, State], fsid: str) -> list[str]:
    return [
        f"{name} holds {', '.join(daemons)} of the cluster {other}, but ceph_fsid is {fsid}; take the host out of the "
        "group, or correct ceph_fsid in group_vars/all/platform.yml. Nothing was changed."
        for name, state in sorted(states.items())
        for other, daemons in sorted(state["clusters"].items())
        if other != fsid and daemons
    ]


def _no_majority(states: Mapping[str, State], members: Sequence[str]) -> str:
    seen = []
    for name in members:
        if name not in states:
            seen.append(f"{name} was not part of this run")
        elif states[name]["monitor"]["there"]:
            seen.append(f"{name}: {states[name]['monitor']['state'] or 'its monitor does not run'}")
    return (
        f"The monitors have no majority ({'; '.join(seen)}). Bring back the hosts that are down and look at "
        "journalctl -u 'ceph-*@mon.*' on them; the run goes on where it stopped. Nothing was changed."
    )


def _without_monitors(holders: Sequence[str]) -> str:
    return (
        f"No host has a monitor of this cluster, but {', '.join(holders)} holds data of it; restore the monitors' "
        "store first (a backup of it, or from the OSDs). No new cluster is founded beside it. Nothing was changed."
    )
