"""What a running cluster needs to be as declared: its hosts, monitors, managers, options and keys. Pure decisions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ADMIN_LABEL = "_admin"
SMALLEST_TARGET_MB = 896
"""Ceph refuses less."""
SHARED_TARGET_MB = 1536
LARGEST_TARGET_MB = 8192
"""An OSD on one network volume gains nothing by more."""
CIPHERS = {"aes": 1, "aes256k": 2}


@dataclass(frozen=True)
class Step:
    """One thing to do and the sentence about it."""

    sentence: str
    command: tuple[str, ...]
    input: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What the role declares."""

    hosts: Mapping[str, str]
    """Address by name."""
    monitors: Sequence[str]
    managers: Sequence[str]
    ssh_user: str
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modules: Sequence[str] = ()
    ciphers: Sequence[str] = ("aes", "aes256k")
    muted: Sequence[str] = ()
    present: Sequence[str] = ()
    """Hosts that were seen to have a monitor, part of the cluster or not."""


def access_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """How the managers reach the members: before the first host is added."""
    steps = []
    if view["ssh_user"] != wanted.ssh_user:
        steps.append(Step(f"reach the hosts as {wanted.ssh_user}", ("cephadm", "set-user", wanted.ssh_user)))
    if not view["ssh_key"]:
        steps.append(Step("make the key with which hosts are reached", ("cephadm", "generate-key")))
    return steps


BIRTH_OPTIONS = ("mgr_initial_modules",)
"""Only a new cluster reads these, from its first file; the monitors refuse to keep them."""


def option_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Options, ciphers, modules, muted warnings."""
    steps = []
    there = {(entry["section"], entry["name"], entry.get("mask", "")): entry["value"] for entry in view["config"]}
    for section, options in wanted.config.items():
        for name, value in options.items():
            if name in BIRTH_OPTIONS:
                continue
            text = as_text(value)
            held = there.get((section, name, ""))
            if held is None or not same_value(held, text):
                was = f" (was {held})" if held is not None else ""
                # Options of a module are known to the managers only, not to the monitors that keep them.
                force = ("--force",) if name.startswith("mgr/") else ()
                steps.append(
                    Step(f"set {name} of {section} to {text}{was}", ("config", "set", section, name, text, *force))
                )
    steps += cipher_steps(view, wanted)
    steps += [
        Step(f"enable the manager's module {module}", ("mgr", "module", "enable", module))
        for module in wanted.modules
        if module not in view["modules"]
    ]
    # Muted whether it is there now or not: a warning that comes back is muted already.
    steps += [
        Step(f"mute the warning {name}, which is expected", ("health", "mute", name, "--sticky"))
        for name in wanted.muted
        if name not in view["muted"]
    ]
    return steps


def cipher_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Widened before anything is preferred; narrowed never here, since that locks clients out (rotate_ceph_keys)."""
    ciphers = view["ciphers"]
    steps = []
    if set(wanted.ciphers) - set(ciphers["allowed"]):
        allowed = ",".join(name for name in CIPHERS if name in {*wanted.ciphers, *ciphers["allowed"]})
        steps.append(Step(f"accept keys of the types {allowed}", ("mon", "set", "auth_allowed_ciphers", allowed)))
    for role in ("preferred", "service"):
        if ciphers[role] != "aes256k":
            steps.append(Step(f"make {role} keys aes256k", ("mon", "set", f"auth_{role}_cipher", "aes256k")))
    return steps


def member_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Hosts, then what runs on them."""
    steps = []
    labels = {name: [ADMIN_LABEL] if name in wanted.monitors else [] for name in wanted.hosts}
    new = [name for name, address in wanted.hosts.items() if view["hosts"].get(name, {}).get("address") != address]
    if new:
        documents = [
            {"service_type": "host", "hostname": name, "addr": wanted.hosts[name], "labels": labels[name]}
            for name in new
        ]
        steps.append(_apply(f"add the hosts {', '.join(new)}", documents))
    for name in wanted.hosts:
        if name not in new:
            steps += [
                Step(f"label {name} {label}", ("orch", "host", "label", "add", name, label))
                for label in labels[name]
                if label not in view["hosts"][name]["labels"]
            ]
    services = [service for service in service_documents(wanted) if not same_service(view["services"], service)]
    if services:
        names = ", ".join(service["service_type"] for service in services)
        steps.append(_apply(f"declare where {names} run", services))
    # Where a monitor runs, a person can work; the orchestrator writes it anew when the key changes.
    if "client.admin" not in view["keyrings"]:
        keep = ("orch", "client-keyring", "set", "client.admin", f"label:{ADMIN_LABEL}")
        steps.append(Step("keep the administrator's key on the hosts with a monitor", keep))
    # One that is on its host and has not joined yet is waited for by the proof.
    believed = believed_monitors(view, wanted)
    missing = [name for name in wanted.monitors if name not in {*view["monitors"], *wanted.present, *believed}]
    for name in believed:
        look = ("orch", "ps", "--hostname", name, "--daemon_type", "mon", "--refresh")
        steps.append(Step(f"let the orchestrator see that {name} has no monitor", look))
    if missing:
        placement = " ".join(f"{name}:{wanted.hosts[name]}" for name in missing)
        steps.append(Step(f"add a monitor on {', '.join(missing)}", ("orch", "daemon", "add", "mon", placement)))
    return steps


def believed_monitors(view: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Hosts that were made anew. The orchestrator still believes that they have a monitor, and would not add one."""
    there = {*view["monitors"], *wanted.present}
    return [name for name in wanted.monitors if name not in there and name in view["placed"]]


def service_documents(wanted: Wanted) -> list[dict[str, Any]]:
    """What the orchestrator keeps running, and where.

    Monitors are placed by us: the orchestrator would leave out every host that has no route to the network by itself,
    as on Hetzner, where each address stands alone (/32), and it would remove the monitors that it left out.
    """
    return [
        {
            "service_type": "mon",
            "unmanaged": True,
            "placement": {"hosts": list(wanted.monitors)},
        },
        {"service_type": "mgr", "placement": {"hosts": list(wanted.managers)}},
        {"service_type": "crash", "placement": {"hosts": list(wanted.hosts)}},
    ]


def same_service(services: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> bool:
    """Whether a service is declared as wanted; the order of its hosts says nothing."""
    for service in services:
        if service.get("service_type") == wanted["service_type"] and not service.get("service_id"):
            held = [_host_name(entry) for entry in service.get("placement", {}).get("hosts", [])]
            return sorted(held) == sorted(wanted["placement"]["hosts"]) and bool(service.get("unmanaged")) == bool(
                wanted.get("unmanaged")
            )
    return False


def _host_name(entry: Any) -> str:
    return str(entry["hostname"] if isinstance(entry, Mapping) else entry).partition(":")[0]


def _apply(sentence: str, documents: Sequence[Mapping[str, Any]]) -> Step:
    # JSON is YAML: one document after the other.
    text = "".join(f"---\n{json.dumps(document)}\n" for document in documents)
    return Step(sentence, ("orch", "apply"), text)


def unclaimed(view: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """What is there and nobody declared; it is left alone."""
    found = [
        f"host {name} is part of the cluster, but no member; it is left alone (drain_ceph_host takes it out)"
        for name in sorted(set(view["hosts"]) - set(wanted.hosts))
    ]
    found += [
        f"there is a monitor on {name}, which should have none; it is left alone"
        for name in sorted(set(view["monitors"]) - set(wanted.monitors))
    ]
    declared = {(section, name) for section, options in wanted.config.items() for name in options}
    found += [
        f"option {entry['name']} of {entry['section']} is {entry['value']}, which is not declared; it is left alone"
        for entry in view["config"]
        if (entry["section"], entry["name"]) not in declared and not _of_the_orchestrator(entry)
    ]
    found += [
        f"the warning {name} is muted, but not by ceph_muted_warnings"
        for name in sorted(set(view["muted"]) - set(wanted.muted))
    ]
    return found


def _of_the_orchestrator(entry: Mapping[str, Any]) -> bool:
    """Options that the cluster keeps for itself: what it stores about its daemons and its own image."""
    name, section = str(entry["name"]), str(entry["section"])
    own = ("container_image", "mon_host", "fsid", "cluster_network", "rgw_", "mds_", "auth_", "ms_")
    return name.startswith(("mgr/", *own)) or "." in section or bool(entry.get("mask"))


HELD = ("OSDMAP_FLAGS",)
"""Warnings of what somebody holds on purpose, like noout while an OSD is replaced."""


def unmet(view: Mapping[str, Any], wanted: Wanted, version: str) -> list[str]:
    """What is not yet as declared, as sentences."""
    found = []
    quorum = set(view["quorum"])
    if outside := [name for name in wanted.monitors if name not in quorum]:
        found.append(f"no monitor of {', '.join(outside)} is in the quorum ({', '.join(sorted(quorum)) or 'nobody'})")
    managers = len(wanted.managers)
    if (count := view["managers"]) < managers:
        found.append(f"{count} of {managers} managers answer")
    for name in wanted.hosts:
        host = view["hosts"].get(name)
        if host is None:
            found.append(f"{name} is not part of the cluster")
        elif host["status"]:
            found.append(f"the managers see {name} as {host['status'].lower()}")
    if away := view["osds"] - min(view["osds_up"], view["osds_in"]):
        found.append(f"{away} of {view['osds']} OSDs are down or out")
    if view["unclean"]:
        states = ", ".join(f"{count} {state}" for state, count in sorted(view["unclean"].items()))
        found.append(f"placement groups are not active+clean ({states})")
    found += [f"{code}: {text}" for code, text in view["warnings"].items() if code not in HELD]
    if other := sorted({seen for seen in view["versions"] if seen != version}):
        found.append(f"daemons run {', '.join(other)} instead of {version}")
    return found


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_value(held: str, wanted: str) -> bool:
    """Ceph shows numbers in its own way: 0.500000 for 0.5."""
    if held == wanted or held.lower() == wanted.lower():
        return True
    try:
        return float(held) == float(wanted)
    except ValueError:
        return False


def memory_target(
    states: Mapping[str, Mapping[str, Any]], declared_mb: int, shared: bool, reserved_mb: int, osds: int = 1
) -> int:
    """Memory in MB that an OSD aims at: as declared, or what the smallest member can spare."""
    if int(declared_mb):
        return int(declared_mb)
    if shared or not states:
        return SHARED_TARGET_MB
    smallest = min(int(state["memory_mb"]) for state in states.values())
    # An OSD goes over its aim now and then, hence a fifth less than there is.
    spare = int((smallest - int(reserved_mb)) * 0.8) // max(int(osds), 1)
    return max(SMALLEST_TARGET_MB, min(LARGEST_TARGET_MB, spare))


def version_faults(version: str, minimums: Sequence[str]) -> list[str]:
    """Whether a release has the fix of CVE-2025-30156; `minimums` names the first of each major that does."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return [f"ceph_version is {version}; write a release in full, like {minimums[0]}."]
    parts = [int(part) for part in version.split(".")]
    floors = {int(minimum.split(".")[0]): [int(part) for part in minimum.split(".")] for minimum in minimums}
    floor = floors.get(parts[0])
    if floor is None or parts < floor:
        return [
            f"ceph_version is {version}, which is not among the releases with the fix of CVE-2025-30156 "
            f"({' or '.join(minimums)} and newer of the same major); set a newer one in group_vars/all/platform.yml."
        ]
    return []
