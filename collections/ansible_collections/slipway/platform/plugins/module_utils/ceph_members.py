"""Steps that reconcile a running cluster: hosts, monitors, managers, options and key types. Pure decisions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ADMIN_LABEL = "_admin"
SMALLEST_TARGET_MB = 896
"""The minimum of osd_memory_target."""
SHARED_TARGET_MB = 1536
LARGEST_TARGET_MB = 8192
"""An OSD on one network volume does not use more."""
CIPHERS = {"aes": 1, "aes256k": 2}


@dataclass(frozen=True)
class Step:
    """One command and its summary."""

    summary: str
    command: tuple[str, ...]
    input: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The declared state."""

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
    """Hosts that have a monitor daemon, in the monitor map or not."""


def access_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """SSH access of the managers to the members, needed before the first host is added."""
    steps = []
    if view["ssh_user"] != wanted.ssh_user:
        steps.append(Step(f"set cephadm's SSH user to {wanted.ssh_user}", ("cephadm", "set-user", wanted.ssh_user)))
    if not view["ssh_key"]:
        steps.append(Step("generate cephadm's SSH key", ("cephadm", "generate-key")))
    return steps


BOOTSTRAP_OPTIONS = ("mgr_initial_modules",)
"""Only the bootstrap reads these; the monitors reject them in the configuration database."""


def option_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Options, ciphers, modules, muted warnings."""
    steps = []
    there = {(entry["section"], entry["name"], entry.get("mask", "")): entry["value"] for entry in view["config"]}
    for section, options in wanted.config.items():
        for name, value in options.items():
            if name in BOOTSTRAP_OPTIONS:
                continue
            text = as_text(value)
            held = there.get((section, name, ""))
            if held is None or not same_value(held, text):
                was = f" (was {held})" if held is not None else ""
                # Only the managers know the options of their modules, so the monitors need --force.
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
    # Muted even while it is not raised, so that it is muted when it returns.
    steps += [
        Step(f"mute the expected warning {name}", ("health", "mute", name, "--sticky"))
        for name in wanted.muted
        if name not in view["muted"]
    ]
    return steps


def cipher_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Allowed key types are extended before one is preferred, and never reduced: that would lock out clients."""
    ciphers = view["ciphers"]
    steps = []
    if set(wanted.ciphers) - set(ciphers["allowed"]):
        allowed = ",".join(name for name in CIPHERS if name in {*wanted.ciphers, *ciphers["allowed"]})
        steps.append(Step(f"allow the key types {allowed}", ("mon", "set", "auth_allowed_ciphers", allowed)))
    for role in ("preferred", "service"):
        if ciphers[role] != "aes256k":
            steps.append(Step(f"set the {role} key type to aes256k", ("mon", "set", f"auth_{role}_cipher", "aes256k")))
    return steps


def member_steps(view: Mapping[str, Any], wanted: Wanted) -> list[Step]:
    """Hosts, then the daemons on them."""
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
        steps.append(_apply(f"apply the service specifications of {names}", services))
    # Admin hosts are those with a monitor; the orchestrator updates their keyring after a key rotation.
    if "client.admin" not in view["keyrings"]:
        command = ("orch", "client-keyring", "set", "client.admin", f"label:{ADMIN_LABEL}")
        steps.append(Step("distribute the admin keyring to the hosts with a monitor", command))
    # A monitor that is deployed but has not joined yet is awaited by the verification.
    stale = stale_monitors(view, wanted)
    missing = [name for name in wanted.monitors if name not in {*view["monitors"], *wanted.present, *stale}]
    for name in stale:
        refresh = ("orch", "ps", "--hostname", name, "--daemon_type", "mon", "--refresh")
        steps.append(Step(f"refresh the orchestrator's stale entry of mon.{name}", refresh))
    if missing:
        placement = " ".join(f"{name}:{wanted.hosts[name]}" for name in missing)
        steps.append(Step(f"add a monitor on {', '.join(missing)}", ("orch", "daemon", "add", "mon", placement)))
    return steps


def stale_monitors(view: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Replaced hosts whose old monitor the orchestrator still lists, so that it would not add a new one."""
    existing = {*view["monitors"], *wanted.present}
    return [name for name in wanted.monitors if name not in existing and name in view["orchestrator_monitors"]]


def service_documents(wanted: Wanted) -> list[dict[str, Any]]:
    """Service specifications for the orchestrator.

    Monitors are unmanaged and placed by this module: the orchestrator skips every host without a route of its own to
    public_network, as on Hetzner, where each address is a /32, and would remove the monitors on skipped hosts.
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
    """Whether a service has the wanted specification; the order of hosts does not matter."""
    for service in services:
        if service.get("service_type") == wanted["service_type"] and not service.get("service_id"):
            held = [_host_name(entry) for entry in service.get("placement", {}).get("hosts", [])]
            return sorted(held) == sorted(wanted["placement"]["hosts"]) and bool(service.get("unmanaged")) == bool(
                wanted.get("unmanaged")
            )
    return False


def _host_name(entry: Any) -> str:
    return str(entry["hostname"] if isinstance(entry, Mapping) else entry).partition(":")[0]


def _apply(summary: str, documents: Sequence[Mapping[str, Any]]) -> Step:
    # JSON is YAML: one document after the other.
    text = "".join(f"---\n{json.dumps(document)}\n" for document in documents)
    return Step(summary, ("orch", "apply"), text)


def undeclared(view: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Undeclared objects, which are left unchanged."""
    found = [
        f"host {name} is in the cluster but not declared; unchanged (drain_ceph_host.yml removes it)"
        for name in sorted(set(view["hosts"]) - set(wanted.hosts))
    ]
    found += [
        f"mon.{name} exists but is not declared; unchanged"
        for name in sorted(set(view["monitors"]) - set(wanted.monitors))
    ]
    declared = {(section, name) for section, options in wanted.config.items() for name in options}
    found += [
        f"option {entry['name']} of {entry['section']} is {entry['value']} but not declared; unchanged"
        for entry in view["config"]
        if (entry["section"], entry["name"]) not in declared and not _is_internal(entry)
    ]
    found += [
        f"the warning {name} is muted but not listed in ceph_muted_warnings"
        for name in sorted(set(view["muted"]) - set(wanted.muted))
    ]
    return found


def _is_internal(entry: Mapping[str, Any]) -> bool:
    """Options that Ceph itself sets: of single daemons, and of its image."""
    name, section = str(entry["name"]), str(entry["section"])
    own = ("container_image", "mon_host", "fsid", "cluster_network", "rgw_", "mds_", "auth_", "ms_")
    return name.startswith(("mgr/", *own)) or "." in section or bool(entry.get("mask"))


EXPECTED_WARNINGS = ("OSDMAP_FLAGS",)
"""Raised by flags that an operation sets, like noout while an OSD is replaced."""


def unmet(view: Mapping[str, Any], wanted: Wanted, version: str) -> list[str]:
    """Differences from the declared state that are still open, one message each."""
    found = []
    quorum = set(view["quorum"])
    if outside := [name for name in wanted.monitors if name not in quorum]:
        found.append(
            f"the monitor of {', '.join(outside)} is not in the quorum ({', '.join(sorted(quorum)) or 'empty'})"
        )
    managers = len(wanted.managers)
    if (count := view["managers"]) < managers:
        found.append(f"{count} of {managers} managers run")
    for name in wanted.hosts:
        host = view["hosts"].get(name)
        if host is None:
            found.append(f"{name} is not part of the cluster")
        elif host["status"]:
            found.append(f"{name} is {host['status'].lower()} for the managers")
    if unavailable := view["osds"] - min(view["osds_up"], view["osds_in"]):
        found.append(f"{unavailable} of {view['osds']} OSDs are down or out")
    if view["unclean"]:
        states = ", ".join(f"{count} {state}" for state, count in sorted(view["unclean"].items()))
        found.append(f"placement groups are not active+clean ({states})")
    found += [f"{code}: {text}" for code, text in view["warnings"].items() if code not in EXPECTED_WARNINGS]
    if others := sorted({running for running in view["versions"] if running != version}):
        found.append(f"daemons run {', '.join(others)} instead of {version}")
    return found


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_value(held: str, wanted: str) -> bool:
    """Whether two values are equal; Ceph prints 0.500000 for 0.5."""
    if held == wanted or held.lower() == wanted.lower():
        return True
    try:
        return float(held) == float(wanted)
    except ValueError:
        return False


def memory_target(
    states: Mapping[str, Mapping[str, Any]], declared_mb: int, shared: bool, reserved_mb: int, osds: int = 1
) -> int:
    """osd_memory_target in MB: as declared, or computed from the smallest member."""
    if int(declared_mb):
        return int(declared_mb)
    if shared or not states:
        return SHARED_TARGET_MB
    smallest = min(int(state["memory_mb"]) for state in states.values())
    # An OSD exceeds its target at times, hence 20 % less.
    spare = int((smallest - int(reserved_mb)) * 0.8) // max(int(osds), 1)
    return max(SMALLEST_TARGET_MB, min(LARGEST_TARGET_MB, spare))


def version_faults(version: str, minimums: Sequence[str]) -> list[str]:
    """Faults of a release without the fix of CVE-2025-30156; `minimums` are the first fixed releases of each major."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return [f"ceph_version: {version} is not a full release. Set one like {minimums[0]}."]
    parts = [int(part) for part in version.split(".")]
    floors = {int(minimum.split(".")[0]): [int(part) for part in minimum.split(".")] for minimum in minimums}
    floor = floors.get(parts[0])
    if floor is None or parts < floor:
        return [
            f"ceph_version: {version} lacks the fix of CVE-2025-30156. Set {' or '.join(minimums)} or a newer "
            "release of the same major in group_vars/all/platform.yml."
        ]
    return []
