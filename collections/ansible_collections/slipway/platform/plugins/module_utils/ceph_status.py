"""Status of a whole cluster, read in one batch and reduced to what decisions need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

Json = dict[str, Any]

BOOTSTRAP_KEY = "mgr/dashboard/cluster/status"
"""The last thing that `cephadm bootstrap` stores."""

COMMANDS: dict[str, list[str]] = {
    "status": ["status"],
    "monmap": ["mon", "dump"],
    "config": ["config", "dump"],
    "modules": ["mgr", "module", "ls"],
    "health": ["health", "detail"],
    "versions": ["versions"],
    "bootstrapped": ["config-key", "get", BOOTSTRAP_KEY],
    "osd_map": ["osd", "dump"],
    # These need an active manager.
    "orchestrator": ["orch", "status"],
    "user": ["cephadm", "get-user"],
    "key": ["cephadm", "get-pub-key"],
    "hosts": ["orch", "host", "ls"],
    "keyrings": ["orch", "client-keyring", "ls"],
    "services": ["orch", "ls"],
    "daemons": ["orch", "ps"],
}


def read_status(cluster: Cluster) -> Json:
    """The whole status. Without an active manager, the part of the orchestrator is empty."""
    answers = cluster.execute(list(COMMANDS.values()), json_wanted=True, strict=False, manager_wait=False)
    return parse_status(
        {name: "" if answer["code"] else str(answer["output"]) for name, answer in zip(COMMANDS, answers, strict=True)}
    )


def parsed(text: str, default: Any = None) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {} if default is None else default


def parse_status(answers: Mapping[str, str]) -> Json:
    status, monmap = parsed(answers["status"]), parsed(answers["monmap"])
    health = parsed(answers["health"])
    manager_map = status.get("mgrmap", {})
    return {
        "fsid": monmap.get("fsid", ""),
        "bootstrapped": answers["bootstrapped"].strip().strip('"') == "INSTALLED",
        "monitors": [str(one["name"]) for one in monmap.get("mons", [])],
        "quorum": [str(name) for name in status.get("quorum_names", [])],
        "managers": int(bool(manager_map.get("available"))) + int(manager_map.get("num_standbys", 0)),
        # `orch status` reports cephadm as unavailable until it has an SSH key, so the answer of get-user decides.
        "orchestrated": bool(answers.get("user")) and parsed(answers["orchestrator"]).get("backend") == "cephadm",
        "osds": int(status.get("osdmap", {}).get("num_osds", 0)),
        "osds_up": int(status.get("osdmap", {}).get("num_up_osds", 0)),
        "osds_in": int(status.get("osdmap", {}).get("num_in_osds", 0)),
        "known_osds": osds_of(parsed(answers["osd_map"])) if answers.get("osd_map") else None,
        "unclean": unclean(status.get("pgmap", {}).get("pgs_by_state", [])),
        "config": [
            {
                "section": entry["section"],
                "name": entry["name"],
                "value": str(entry["value"]),
                "mask": entry.get("mask", ""),
            }
            for entry in parsed(answers["config"], [])
        ],
        "modules": _modules(parsed(answers["modules"])),
        "ciphers": ciphers(monmap),
        "muted": [str(mute["code"]) for mute in health.get("mutes", [])],
        "health": str(health.get("status", "")),
        "warnings": {
            code: str(check.get("summary", {}).get("message", ""))
            for code, check in health.get("checks", {}).items()
            if not check.get("muted")
        },
        "versions": sorted({release(text) for text in parsed(answers["versions"]).get("overall", {})}),
        "ssh_user": answers.get("user", "").strip().strip('"'),
        "ssh_key": answers.get("key", "").strip(),
        "hosts": {
            str(host["hostname"]): {
                "address": str(host.get("addr", "")),
                "labels": list(host.get("labels", [])),
                "status": str(host.get("status", "")),
            }
            for host in parsed(answers.get("hosts", ""), [])
        },
        "keyrings": [str(keyring["entity"]) for keyring in parsed(answers.get("keyrings", ""), [])],
        "services": parsed(answers.get("services", ""), []),
        "orchestrator_monitors": sorted(
            str(daemon["hostname"])
            for daemon in parsed(answers.get("daemons", ""), [])
            if daemon.get("daemon_type") == "mon"
        ),
    }


def osds_of(osd_map: Mapping[str, Any]) -> dict[str, str]:
    """UUID → id of the OSDs of the cluster, without destroyed ones."""
    return {
        str(entry.get("uuid", "")): str(entry["osd"])
        for entry in osd_map.get("osds", [])
        if "destroyed" not in entry.get("state", [])
    }


def _modules(listing: Mapping[str, Any]) -> list[str]:
    return sorted({*listing.get("enabled_modules", []), *listing.get("always_on_modules", [])})


# States besides active of a placement group that has all its copies: being moved, scrubbed or trimmed.
COMPLETE_STATES = {
    "active",
    "clean",
    "remapped",
    "backfilling",
    "backfill_wait",
    "scrubbing",
    "deep",
    "snaptrim",
    "snaptrim_wait",
}


def unclean(states: list[Mapping[str, Any]]) -> dict[str, int]:
    """Placement groups that are not active or lack a copy: count by state."""
    counts = {str(entry["state_name"]): int(entry["count"]) for entry in states}
    return {
        state: count for state, count in counts.items() if not {"active"} <= set(state.split("+")) <= COMPLETE_STATES
    }


def ciphers(monmap: Mapping[str, Any]) -> dict[str, Any]:
    """Key types that the monitors accept and create."""

    def name(value: Any) -> str:
        return str(value.get("name", "") if isinstance(value, Mapping) else value)

    return {
        "allowed": [name(value) for value in monmap.get("auth_allowed_ciphers", [])],
        "preferred": name(monmap.get("auth_preferred_cipher", "")),
        "service": name(monmap.get("auth_service_cipher", "")),
    }


def release(text: str) -> str:
    """20.2.4 of "ceph version 20.2.4 (…) tentacle (stable)"."""
    match = re.search(r"\b(\d+\.\d+\.\d+)", text)
    return match[1] if match else text
