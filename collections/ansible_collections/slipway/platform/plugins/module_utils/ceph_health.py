"""Health gate of a Ceph cluster: read its status, and compare it with what is required (pure)."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# Commands of the monitors, which need no manager.
COMMANDS = [["status"], ["health", "detail"], ["quorum_status"], ["mgr", "dump"], ["osd", "dump"]]


def read(cluster: Cluster, stoppable: list[str]) -> dict[str, Any]:
    """The status that `unmet` needs; `stoppable` are daemons like osd.1 that are checked by ok-to-stop."""
    status, health, quorum, managers, osds = cluster.batch(COMMANDS)
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
        more = [["osd", "df"], *(_ok_to_stop_command(daemon) for daemon in stoppable)]
        usage, *answers = cluster.execute(more, json_wanted=True, strict=False)
        if usage["code"] == 0:
            view["used"] = used_of(cluster.parsed(more[0], usage["output"]))
        view["refusals"] = {
            daemon: answer["message"] for daemon, answer in zip(stoppable, answers, strict=True) if answer["code"]
        }
    return view


def used_of(usage: dict[str, Any]) -> dict[str, float]:
    """OSD → used share of its device, from osd df."""
    return {str(node["id"]): round(node["utilization"] / 100, 4) for node in usage["nodes"] if node.get("kb")}


def _ok_to_stop_command(daemon: str) -> list[str]:
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
    """Requirements that the cluster does not meet, one message each.

    With `clean` false, active placement groups are enough: the gate while a host or an OSD is down.
    """
    found: list[str] = []
    missing = sorted(set(monitors) - set(view["quorum"]))
    unexpected = sorted(set(view["quorum"]) - set(monitors))
    if clean and missing:
        found.append(f"{_and(missing)} not in the monitor quorum ({', '.join(view['quorum'])})")
    if clean and unexpected and monitors:
        found.append(f"{_and(unexpected)} in the quorum but not expected")
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
        f"osd.{name} is {share:.0%} full, the limit is {nearfull:.0%}"
        for name, share in sorted(view["used"].items())
        if share >= nearfull
    ]
    found += [f"{daemon} is not ok-to-stop: {reason.strip()}" for daemon, reason in sorted(view["refusals"].items())]
    return found


def _and(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def detail(view: dict[str, Any]) -> str:
    """Health in the format of `ceph health detail`."""
    lines = [view["status"]]
    for check in view["checks"]:
        muted = "(MUTED) " if check["muted"] else ""
        lines.append(f"{muted}[{check['severity'].removeprefix('HEALTH_')}] {check['code']}: {check['summary']}")
        lines += [f"    {line}" for line in check["detail"]]
    return "\n".join(lines)
