"""Decide what an RKE2 cluster needs: pure functions over what rke2_state has read, no input or output of their own."""

from __future__ import annotations

import re
from typing import Any

VERSION = re.compile(r"^v(\d+)\.(\d+)\.(\d+)(?:-rc(\d+))?\+rke2r(\d+)$")

# Set on a node by the role together with the cordon, so that a cordon made by a person is never undone.
CORDON_ANNOTATION = "slipway.platform/cordoned-by-rke2-role"


def parse_version(version: str) -> tuple[int, int, int, int, int]:
    """Order RKE2 versions: (major, minor, patch, release candidate or infinity, rke2 release)."""
    match = VERSION.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not an RKE2 version; write it in full, like v1.36.3+rke2r1")
    major, minor, patch, candidate, release = match.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else 10**6, int(release)


def minor_of(version: str) -> str:
    """v1.36.3+rke2r1 -> 1.36."""
    major, minor, *_ = parse_version(version)
    return f"{major}.{minor}"


def version_fault(name: str, running: str, desired: str) -> str | None:
    """Why a node that runs `running` must not be taken to `desired`, or None."""
    have, want = parse_version(running), parse_version(desired)
    if want < have:
        return (
            f"{name} runs {running} and rke2_version is {desired}: RKE2 cannot go back in place. "
            f"Set rke2_version to {running} or newer, or restore a snapshot taken under {minor_of(desired)}."
        )
    if want[0] != have[0] or want[1] > have[1] + 1:
        return (
            f"{name} runs {running} and rke2_version is {desired}: a minor version would be skipped. "
            f"Go to the newest {have[0]}.{have[1] + 1} first."
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
    """What still keeps a cluster, as rke2_state sees it from one host, from being as wanted; empty means it is."""
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
                found.append(f"node {name} says EtcdIsVoter=False")
    return found


def alarm_faults(etcd: dict[str, Any]) -> list[str]:
    """Alarms of etcd. Under one the cluster still reads, so everything looks well, and refuses what is written."""
    return [
        f"etcd member {entry['member']} raised the alarm {entry['alarm']}: every write is refused. Free its space and "
        "disarm it (docs/runbooks/upgrade_rke2.md, Alarms of etcd)"
        for entry in etcd["alarms"]
    ]


def constant_faults(state: dict[str, Any], wanted: dict[str, Any], token_digest: str) -> list[str]:
    """Settings that would change under a cluster that was founded with others."""
    if not state["has_data"]:
        return []
    faults = []
    if state["token_digest"] not in ("", token_digest):
        faults.append(
            f"{state['node_name']} runs with another rke2_token than the one given, and would not start with this one: "
            "the token encrypts what the cluster keeps. Put the former one back into group_vars/all/vault.yml, or have "
            "the cluster take the new one first (rke2 token rotate)."
        )
    for key, have in sorted(state["constants"].items()):
        want = wanted.get(key)
        want = str(want[0] if isinstance(want, list) else want)
        if have != want:
            faults.append(
                f"{state['node_name']} was founded with {key} {have}, and rke2_{key.replace('-', '_')} is {want}: "
                f"it never changes in the life of a cluster. Set it back to {have}."
            )
    return faults


def unmet_service(service: dict[str, Any], unit: str, started_after: float) -> list[str]:
    """What keeps a service from being the new process, all the way up (its unit says so only then: Type=notify)."""
    if service["started_at"] <= started_after and started_after > 0:
        return [f"{unit} was not restarted yet"]
    return [] if service["state"] == "active" else [f"{unit} is {service['state']}"]


def recover_action(state: dict[str, Any]) -> str:
    """What a server that already holds data needs before anything else: none, start, restart or wait.

    Servers that are down are started all at once: after a power loss no server comes up before a majority does.
    """
    if state["type"] != "server" or not state["has_data"]:
        return "none"
    service = state["service"]["state"]
    if service != "active":
        if state["unread"] or state["installed_version"] != state["desired_version"]:
            return "restart"
        return "wait" if service == "activating" else "start"
    if unmet(state, nodes=[state["node_name"]], members=[state["node_name"]]):
        return "wait"
    return "none"


def certificate_holders(states: dict[str, Any], servers: list[str]) -> dict[str, list[str]]:
    """Digest of the ingress certificate's manifest -> the servers that hold it; an empty digest for those without."""
    holders: dict[str, list[str]] = {}
    for name in servers:
        held = states.get(name, {}).get("ingress_certificate")
        holders.setdefault(held["digest"] if held else "", []).append(name)
    return holders


def _known(name: str, views: list[dict[str, Any]]) -> list[str]:
    """Where the cluster still knows a node by that name."""
    found = []
    for view in views:
        if name in view["api"]["nodes"]:
            found.append("as a node")
        if view.get("etcd") and not view["etcd"].get("error") and member_of(name, view["etcd"]["members"]):
            found.append("as a member of etcd")
        if found:
            break
    return found


def _reasons(name: str, state: dict[str, Any], node: dict[str, Any] | None, version: str) -> list[str]:
    """Why a running node has to be restarted."""
    found = []
    if node is not None and node["version"] != version:
        found.append(f"runs {node['version']}, {version} is wanted")
    if state["unread"]:
        found.append("started before a change of " + ", ".join(sorted(state["unread"])))
    return found


def _action(
    name: str, state: dict[str, Any], node: dict[str, Any] | None, reasons: list[str], founder: str | None
) -> str:
    if not state["has_data"]:
        return "bootstrap" if name == founder else "join"
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
    """What each host needs, who may be asked about the cluster, and the faults that forbid to go on.

    states are results of rke2_state by node name; hosts that were not read are missing.
    """
    faults: list[str] = []
    try:
        parse_version(version)
    except ValueError as error:
        return {
            "faults": [f"rke2_version: {error}"],
            "hosts": {},
            "snapshot_host": None,
            "founder": None,
            "settled": False,
        }

    unread = [name for name in servers if name not in states]
    if unread:
        faults.append(
            f"{', '.join(unread)} could not be read in this run, so the state of the cluster is not known. "
            "Run without --limit, or limit to rke2_server and the hosts wanted."
        )
    views = [states[name] for name in servers if _answers(states.get(name))]
    nodes: dict[str, Any] = views[0]["api"]["nodes"] if views else {}
    data = [name for name in servers if states.get(name, {}).get("has_data")]
    founder = servers[0] if not data and not unread else None

    identities = {view["etcd"]["cluster_id"] for view in views if view.get("etcd") and not view["etcd"].get("error")}
    if len(identities) > 1:
        faults.append(
            f"the servers belong to {len(identities)} different etcd clusters ({', '.join(sorted(identities))}). "
            "Stop; decide which one holds the truth, and rebuild the others."
        )

    # A restart under an alarm would look well and end with a cluster that takes no write.
    faults += sorted({fault for view in views if view.get("etcd") for fault in alarm_faults(view["etcd"])})

    hosts: dict[str, Any] = {}
    for name in [*servers, *agents]:
        state = states.get(name)
        if state is None:
            continue
        node = nodes.get(name)
        known = _known(name, views) if not state["has_data"] else []
        if known and state["service"]["state"] not in ("active", "activating"):
            faults.append(
                f"{name} holds no RKE2 data, yet the cluster still knows it {' and '.join(known)}: it was rebuilt. "
                f"Delete the node first (kubectl delete node {name}), which also ends its membership, then run again."
            )
        if node is not None and (fault := version_fault(name, node["version"], version)):
            faults.append(fault)
        reasons = _reasons(name, state, node, version) if state["has_data"] else []
        hosts[name] = {
            "action": _action(name, state, node, reasons, founder),
            "reasons": reasons,
            "ready": bool(node and node["ready"]),
            "cordoned": bool(node and node["unschedulable"] and not node["cordoned_by_role"]),
            "look_from": _look_from(name, servers, views, founder),
            # The servers that have to be whole while this one is taken in hand; when founding, those before it.
            "others": [
                other
                for position, other in enumerate(servers)
                if other != name and (other in data or name not in servers or position < servers.index(name))
            ],
        }

    restarts = [name for name in servers if hosts.get(name, {}).get("action") == "restart"]
    return {
        "faults": faults,
        "hosts": hosts,
        "founder": founder,
        # Nothing to do, and every server sees the whole cluster as wanted: it need not be waited for.
        "settled": {host["action"] for host in hosts.values()} == {"none"}
        and not any(
            unmet(states.get(name, {}), nodes=[*servers, *agents], version=version, members=servers) for name in servers
        ),
        "snapshot_host": (_healthy(servers, views) or restarts[0]) if restarts else None,
    }


def _answers(state: dict[str, Any] | None) -> bool:
    return bool(state and state.get("api") and not state["api"].get("error"))


def _healthy(servers: list[str], views: list[dict[str, Any]]) -> str | None:
    answering = {view["node_name"] for view in views}
    return next((name for name in servers if name in answering), None)


def _look_from(name: str, servers: list[str], views: list[dict[str, Any]], founder: str | None) -> str:
    """The server from which to look at the cluster while this host is not part of it; itself when there is no other."""
    if founder is not None:
        return founder
    others = [server for server in servers if server != name]
    return _healthy(others, views) or (others[0] if others else name)
