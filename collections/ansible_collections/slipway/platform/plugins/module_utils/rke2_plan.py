"""Plan the actions of an RKE2 cluster: pure functions over results of rke2_state, without I/O."""

from __future__ import annotations

import re
from typing import Any

VERSION = re.compile(r"^v(\d+)\.(\d+)\.(\d+)(?:-rc(\d+))?\+rke2r(\d+)$")

# The role sets it together with its cordon, so that it never lifts a cordon set by an operator.
CORDON_ANNOTATION = "slipway.platform/cordoned-by-rke2-role"


RESTORE_RECORD = "/var/lib/rancher/slipway-restore/record.json"
"""Progress of a restore of etcd, on every server; the downloaded snapshot is beside it on the restored one."""
RESTORE_STEPS = ("none", "recorded", "stopped", "moved", "reset", "finished")
"""Steps of a restore of etcd on a server, in order; a peer of the restored server skips the reset."""


def parse_version(version: str) -> tuple[int, int, int, int, int]:
    """Sort key of an RKE2 version: (major, minor, patch, release candidate or infinity, rke2 release)."""
    match = VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not an RKE2 version. Set it in full, like v1.36.3+rke2r1.")
    major, minor, patch, candidate, release = match.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else 10**6, int(release)


def minor_of(version: str) -> str:
    """v1.36.3+rke2r1 -> 1.36."""
    major, minor, *_ = parse_version(version)
    return f"{major}.{minor}"


def version_fault(name: str, running: str, desired: str) -> str | None:
    """Why a node that runs `running` must not be upgraded to `desired`, or None."""
    have, want = parse_version(running), parse_version(desired)
    if want < have:
        return (
            f"{name}: runs {running}, newer than rke2_version {desired}, and RKE2 cannot be downgraded in place. "
            f"Set rke2_version to {running} or newer, or restore a snapshot taken under {minor_of(desired)}."
        )
    if want[0] != have[0] or want[1] > have[1] + 1:
        return (
            f"{name}: runs {running} and rke2_version is {desired}, which skips a minor version. "
            f"Upgrade to the newest {have[0]}.{have[1] + 1} first."
        )
    return None


def member_of(node: str, members: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The etcd member of a node: RKE2 names members <node>-<8 hexadecimal digits>."""
    pattern = re.compile(rf"^{re.escape(node)}(-[0-9a-f]{{8}})?$")
    return next((member for member in members if pattern.match(member["name"])), None)


def unmet(
    view: dict[str, Any],
    *,
    nodes: list[str],
    version: str | None = None,
    version_nodes: list[str] | None = None,
    members: list[str] | None = None,
) -> list[str]:
    """Unmet conditions of a cluster in the view of one host; empty when the cluster is healthy."""
    found: list[str] = []
    api, etcd = view.get("api"), view.get("etcd")
    if not api or api.get("error"):
        return [f"the API does not answer ({(api or {}).get('error') or 'no kubeconfig yet'})"]
    if not api.get("ready", True):
        found.append("the API server's /readyz is not ok")
    for name in nodes:
        node = api["nodes"].get(name)
        if node is None:
            found.append(f"node {name} is not registered")
        elif not node["ready"]:
            found.append(f"node {name} is not Ready")
        elif version and name in (nodes if version_nodes is None else version_nodes) and node["version"] != version:
            found.append(f"node {name} runs {node['version']}, not {version}")
    if members:
        if not etcd or etcd.get("error"):
            return [*found, f"etcd does not answer ({(etcd or {}).get('error') or 'not started'})"]
        found += alarm_faults(etcd)
        for member in etcd["members"]:
            if member["learner"]:
                found.append(f"etcd member {member['name'] or member['id']} is still a learner")
        for name in members:
            member = member_of(name, etcd["members"])
            node = api["nodes"].get(name)
            if member is None:
                found.append(f"{name} is not a member of etcd")
            elif not member["answers"]:
                found.append(f"etcd member {member['name']} does not answer")
            elif node is not None and node["etcd_voter"] is False:
                found.append(f"node {name} has the condition EtcdIsVoter=False")
    return found


def alarm_faults(etcd: dict[str, Any]) -> list[str]:
    """Raised alarms of etcd. Under an alarm reads succeed and nodes stay Ready, but etcd rejects every write."""
    return [
        f"etcd member {entry['member']} raised the alarm {entry['alarm']} and rejects every write. Free its space "
        "and disarm the alarm (docs/runbooks/upgrade_rke2.md, Alarms of etcd)"
        for entry in etcd["alarms"]
    ]


def immutable_faults(state: dict[str, Any], desired: dict[str, Any], token_digest: str) -> list[str]:
    """Immutable settings that differ from those the cluster was bootstrapped with."""
    if not state["has_data"]:
        return []
    faults = []
    if state["token_digest"] not in ("", token_digest):
        faults.append(
            f"{state['node_name']}: runs with another rke2_token than the one given, which encrypts the cluster's "
            "bootstrap data, so RKE2 would not start. Restore the former token in group_vars/all/vault.yml, or rotate "
            "it in the cluster first (rke2 token rotate)."
        )
    for key, have in sorted(state["immutable_settings"].items()):
        want = desired.get(key)
        want = str(want[0] if isinstance(want, list) else want)
        if have != want:
            faults.append(
                f"{state['node_name']}: the cluster was bootstrapped with {key} {have}, and "
                f"rke2_{key.replace('-', '_')} is {want}; the setting is immutable. Set it back to {have}."
            )
    return faults


def unmet_service(service: dict[str, Any], unit: str, started_after: float) -> list[str]:
    """Unmet conditions of the service: started after `started_after`, and active (Type=notify: only once ready)."""
    if service["started_at"] <= started_after and started_after > 0:
        return [f"{unit} was not restarted yet"]
    return [] if service["state"] == "active" else [f"{unit} is {service['state']}"]


def quorum_faults(states: dict[str, Any]) -> list[str]:
    """The loss of a majority of etcd's members with their data, after which no start brings the quorum back."""
    holders = [name for name, state in states.items() if state["type"] == "server" and state["has_data"]]
    for name in holders:
        etcd = states[name].get("etcd")
        voters = [member for member in etcd["members"] if not member["learner"]] if etcd and etcd["error"] else []
        left = [holder for holder in holders if member_of(holder, voters)]
        if voters and 2 * len(left) <= len(voters):
            return [
                f"{', '.join(left)}: only {len(left)} of {len(voters)} members of etcd have data, so the quorum is lost"
                ". Restore etcd as docs/runbooks/restore_etcd.md (Quorum lost) describes."
            ]
    return []


def restore_faults(states: dict[str, Any]) -> list[str]:
    """An unfinished restore of etcd, unless its servers only have to join the restored one."""
    records = {name: state["restore"] for name, state in states.items() if state.get("restore")}
    unfinished = {name: record for name, record in records.items() if record["step"] != "finished"}
    if not unfinished:
        return []
    record = next(iter(unfinished.values()))
    peers = [name for name in unfinished if name != record["target"]]
    restored = (records.get(record["target"]) or {"step": "none"})["step"] in ("reset", "finished")
    if restored and all(unfinished[name]["step"] == "moved" for name in peers):
        return []
    return [
        f"{', '.join(unfinished)}: the restore of etcd of {record['started_at']} is unfinished. "
        "Run playbooks/operations/restore_etcd.yml again with the same options."
    ]


def recovery_action(state: dict[str, Any]) -> str:
    """What a server that holds data needs before the plan is made: none, start, restart or wait.

    Servers that are down start at the same time: after a power loss no server becomes ready without a quorum.
    """
    if state["type"] != "server" or not state["has_data"]:
        return "none"
    service = state["service"]["state"]
    if service != "active":
        if state["stale_files"] or state["installed_version"] != state["desired_version"]:
            return "restart"
        return "wait" if service == "activating" else "start"
    if unmet(state, nodes=[state["node_name"]], members=[state["node_name"]]):
        return "wait"
    return "none"


def certificate_holders(states: dict[str, Any], servers: list[str]) -> dict[str, list[str]]:
    """Digest of the ingress certificate's manifest -> the servers that have it; an empty digest for those without."""
    holders: dict[str, list[str]] = {}
    for name in servers:
        present = states.get(name, {}).get("ingress_certificate")
        holders.setdefault(present["digest"] if present else "", []).append(name)
    return holders


def _registrations(name: str, views: list[dict[str, Any]]) -> list[str]:
    """How the cluster still lists a node of that name: as a node, as a member of etcd, or both."""
    found = []
    for view in views:
        if name in view["api"]["nodes"]:
            found.append("as a node")
        if view.get("etcd") and not view["etcd"].get("error") and member_of(name, view["etcd"]["members"]):
            found.append("as a member of etcd")
        if found:
            break
    return found


def _restart_reasons(name: str, state: dict[str, Any], node: dict[str, Any] | None, version: str) -> list[str]:
    """Why a running node has to be restarted."""
    found = []
    if node is not None and node["version"] != version:
        found.append(f"runs {node['version']}, desired is {version}")
    if state["stale_files"]:
        found.append("started before a change of " + ", ".join(sorted(state["stale_files"])))
    return found


def _action(
    name: str, state: dict[str, Any], node: dict[str, Any] | None, reasons: list[str], bootstrap_host: str | None
) -> str:
    if not state["has_data"]:
        return "bootstrap" if name == bootstrap_host else "join"
    if state["service"]["state"] not in ("active", "activating"):
        return "start"
    if node is None:
        return "start"
    if reasons:
        return "restart"
    if node["cordoned_by_role"]:
        return "resume"
    return "none" if node["ready"] else "start"


def plan(states: dict[str, Any], *, version: str, servers: list[str], agents: list[str]) -> dict[str, Any]:
    """Action of each host, the host to read the cluster's status from, and the faults that forbid any action.

    `states` are results of rke2_state by node name; hosts that were not read in this run are missing.
    """
    faults: list[str] = []
    try:
        parse_version(version)
    except ValueError as error:
        return {
            "faults": [f"rke2_version: {error}"],
            "hosts": {},
            "snapshot_host": None,
            "bootstrap_host": None,
            "converged": False,
        }

    missing = [name for name in servers if name not in states]
    if missing:
        faults.append(
            f"{', '.join(missing)}: not read in this run, so the state of the cluster is unknown. "
            "Run without --limit, or limit to rke2_server and the desired hosts."
        )
    views = [states[name] for name in servers if _answers(states.get(name))]
    nodes: dict[str, Any] = views[0]["api"]["nodes"] if views else {}
    data = [name for name in servers if states.get(name, {}).get("has_data")]
    bootstrap_host = servers[0] if not data and not missing else None

    identities = {view["etcd"]["cluster_id"] for view in views if view.get("etcd") and not view["etcd"].get("error")}
    if len(identities) > 1:
        faults.append(
            f"rke2_server: the servers belong to {len(identities)} different etcd clusters "
            f"({', '.join(sorted(identities))}). "
            "Decide which cluster holds the valid data, and rebuild the other servers."
        )

    faults += quorum_faults(states) + restore_faults(states)

    # After a restart under an alarm all nodes are Ready, but the cluster still rejects writes.
    faults += sorted({fault for view in views if view.get("etcd") for fault in alarm_faults(view["etcd"])})

    hosts: dict[str, Any] = {}
    for name in [*servers, *agents]:
        state = states.get(name)
        if state is None:
            continue
        node = nodes.get(name)
        known = _registrations(name, views) if not state["has_data"] else []
        if (state.get("restore") or {}).get("step") == "moved" and known == ["as a node"]:
            known = []  # The restored cluster lists the node, which has to join again.
        if known and state["service"]["state"] not in ("active", "activating"):
            faults.append(
                f"{name}: holds no RKE2 data, but the cluster still lists it {' and '.join(known)}; the host was "
                f"rebuilt. Delete the node first (kubectl delete node {name}; this also removes its etcd member), "
                "then run again."
            )
        if node is not None and (fault := version_fault(name, node["version"], version)):
            faults.append(fault)
        reasons = _restart_reasons(name, state, node, version) if state["has_data"] else []
        hosts[name] = {
            "action": _action(name, state, node, reasons, bootstrap_host),
            "reasons": reasons,
            "ready": bool(node and node["ready"]),
            "cordoned": bool(node and node["unschedulable"] and not node["cordoned_by_role"]),
            "status_host": _status_host(name, servers, views, bootstrap_host),
            # Servers that have to be healthy while this host restarts; during bootstrap, those before it.
            "peers": [
                other
                for position, other in enumerate(servers)
                if other != name and (other in data or name not in servers or position < servers.index(name))
            ],
        }

    restarts = [name for name in servers if hosts.get(name, {}).get("action") == "restart"]
    return {
        "faults": faults,
        "hosts": hosts,
        "bootstrap_host": bootstrap_host,
        # No action is due and every server reports a healthy cluster: verification need not wait.
        "converged": {host["action"] for host in hosts.values()} == {"none"}
        and not any(
            unmet(states.get(name, {}), nodes=[*servers, *agents], version=version, members=servers) for name in servers
        ),
        "snapshot_host": (_first_answering(servers, views) or restarts[0]) if restarts else None,
    }


def _answers(state: dict[str, Any] | None) -> bool:
    return bool(state and state.get("api") and not state["api"].get("error"))


def _first_answering(servers: list[str], views: list[dict[str, Any]]) -> str | None:
    answering = {view["node_name"] for view in views}
    return next((name for name in servers if name in answering), None)


def _status_host(name: str, servers: list[str], views: list[dict[str, Any]], bootstrap_host: str | None) -> str:
    """The server to read the cluster's status from while this host is not part of it; itself when there is no other."""
    if bootstrap_host is not None:
        return bootstrap_host
    others = [server for server in servers if server != name]
    return _first_answering(others, views) or (others[0] if others else name)
