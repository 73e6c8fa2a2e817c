"""Whether a Ceph cluster is well enough for what comes next: reading it, and the judgement, which is pure."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# Asked of the monitors: they answer without a manager.
QUESTIONS = [["status"], ["health", "detail"], ["quorum_status"], ["mgr", "dump"], ["osd", "dump"]]


def read(cluster: Cluster, stoppable: list[str]) -> dict[str, Any]:
    """The cluster as the judgement needs it; `stoppable` are daemons like osd.1, of which Ceph is asked."""
    status, health, quorum, managers, osds = cluster.batch(QUESTIONS)
    view: dict[str, Any] = {
        "status": health.get("status", ""),
        "checks": [
            {
                "code": code,
                "severity": check.get("severity", ""),
                "summary": check.get("summary", {}).get("message", ""),
                "detail": [line.get("message", "") for line in check.get("detail", [])],
                "muted": bool(check.get("muted")),
            }
            for code, check in sorted(health.get("checks", {}).items())
        ],
        "monitors": sorted(entry["name"] for entry in quorum["monmap"]["mons"]),
        "quorum": sorted(quorum["quorum_names"]),
        "leader": quorum.get("quorum_leader_name", ""),
        "manager": managers.get("active_name", "") if managers.get("available") else "",
        "standbys": sorted(entry["name"] for entry in managers.get("standbys", [])),
        "placement_groups": {
            entry["state_name"]: entry["count"] for entry in status.get("pgmap", {}).get("pgs_by_state", [])
        },
        "osds": {
            str(entry["osd"]): {"up": bool(entry["up"]), "in": bool(entry["in"]), "states": entry.get("state", [])}
            for entry in osds["osds"]
        },
        "flags": sorted(osds.get("flags_set", [])),
        "release": osds.get("require_osd_release", ""),
        "used": {},
        "refusals": {},
    }
    if view["manager"]:
        more = [["osd", "df"], *(_stop_question(daemon) for daemon in stoppable)]
        usage, *answers = cluster.ask(more, json_wanted=True, strict=False)
        if usage["code"] == 0:
            view["used"] = used_of(cluster.parsed(more[0], usage["output"]))
        view["refusals"] = {
            daemon: answer["message"] for daemon, answer in zip(stoppable, answers, strict=True) if answer["code"]
        }
    return view


def used_of(usage: dict[str, Any]) -> dict[str, float]:
    """OSD → used share of its device, from osd df."""
    return {str(node["id"]): round(node["utilization"] / 100, 4) for node in usage["nodes"] if node.get("kb")}


def _stop_question(daemon: str) -> list[str]:
    kind, name = daemon.split(".", 1)
    return [kind, "ok-to-stop", name]


def unclean(states: dict[str, int]) -> dict[str, int]:
    """Placement groups that are not active+clean; scrubbing and trimming do not count against them."""
    return {state: count for state, count in states.items() if not {"active", "clean"} <= set(state.split("+"))}


def inactive(states: dict[str, int]) -> dict[str, int]:
    return {state: count for state, count in states.items() if "active" not in state.split("+")}


def _counted(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def unmet(
    view: dict[str, Any],
    *,
    monitors: list[str],
    managers: int,
    accepted: list[str],
    nearfull: float,
    clean: bool = True,
) -> list[str]:
    """What keeps the cluster from being as wanted, one sentence each; empty means that it is.

    With `clean` false it is enough that every placement group serves: the gate while a host or a disk is away.
    """
    found: list[str] = []
    missing = sorted(set(monitors) - set(view["quorum"]))
    strangers = sorted(set(view["quorum"]) - set(monitors))
    if clean and missing:
        found.append(f"{_and(missing)} not in the quorum of the monitors ({', '.join(view['quorum'])})")
    if clean and strangers and monitors:
        found.append(f"{_and(strangers)} in the quorum and not wanted there")
    if not view["manager"]:
        found.append("no manager is active")
    elif clean and len(view["standbys"]) + 1 < managers:
        found.append(f"{len(view['standbys']) + 1} of {managers} managers run, {view['manager']} is active")
    for check in view["checks"]:
        if check["severity"] == "HEALTH_ERR" and not check["muted"]:
            found.append(f"HEALTH_ERR {check['code']}: {check['summary']}")
        elif clean and not check["muted"] and check["code"] not in accepted:
            found.append(f"HEALTH_WARN {check['code']}: {check['summary']}")
    total = sum(view["placement_groups"].values())
    wrong = unclean(view["placement_groups"]) if clean else inactive(view["placement_groups"])
    if wrong:
        wanted = "active+clean" if clean else "active"
        found.append(f"{sum(wrong.values())} of {total} placement groups are not {wanted} ({_counted(wrong)})")
    if clean:
        down = sorted(f"osd.{name}" for name, osd in view["osds"].items() if osd["in"] and not osd["up"])
        if down:
            found.append(f"{_and(down)} down")
    found += [
        f"osd.{name} is {share:.0%} full, {nearfull:.0%} is the limit"
        for name, share in sorted(view["used"].items())
        if share >= nearfull
    ]
    found += [
        f"{daemon} may not be stopped: {sentence.strip()}" for daemon, sentence in sorted(view["refusals"].items())
    ]
    return found


def _and(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def detail(view: dict[str, Any]) -> str:
    """What `ceph health detail` prints."""
    lines = [view["status"]]
    for check in view["checks"]:
        muted = "(MUTED) " if check["muted"] else ""
        lines.append(f"{muted}[{check['severity'].removeprefix('HEALTH_')}] {check['code']}: {check['summary']}")
        lines += [f"    {line}" for line in check["detail"]]
    return "\n".join(lines)
