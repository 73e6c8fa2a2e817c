"""What a cluster says of itself, in one look and in the words that decisions are made with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

Json = dict[str, Any]

FOUNDED_KEY = "mgr/dashboard/cluster/status"
"""The last thing that `cephadm bootstrap` stores."""

QUESTIONS: dict[str, list[str]] = {
    "status": ["status"],
    "monmap": ["mon", "dump"],
    "config": ["config", "dump"],
    "modules": ["mgr", "module", "ls"],
    "health": ["health", "detail"],
    "versions": ["versions"],
    "founded": ["config-key", "get", FOUNDED_KEY],
    "osd_map": ["osd", "dump"],
    # Only an active manager answers these.
    "orchestrator": ["orch", "status"],
    "user": ["cephadm", "get-user"],
    "key": ["cephadm", "get-pub-key"],
    "hosts": ["orch", "host", "ls"],
    "keyrings": ["orch", "client-keyring", "ls"],
    "services": ["orch", "ls"],
    "daemons": ["orch", "ps"],
}


def look(cluster: Cluster) -> Json:
    """The whole view. Without a manager, its part is empty."""
    answers = cluster.ask(list(QUESTIONS.values()), json_wanted=True, strict=False, manager_wait=False)
    return view_of(
        {name: "" if answer["code"] else str(answer["output"]) for name, answer in zip(QUESTIONS, answers, strict=True)}
    )


def parsed(text: str, default: Any = None) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {} if default is None else default


def view_of(answers: Mapping[str, str]) -> Json:
    status, monmap = parsed(answers["status"]), parsed(answers["monmap"])
    health = parsed(answers["health"])
    manager_map = status.get("mgrmap", {})
    return {
        "fsid": monmap.get("fsid", ""),
        "founded": answers["founded"].strip().strip('"') == "INSTALLED",
        "monitors": [str(one["name"]) for one in monmap.get("mons", [])],
        "quorum": [str(name) for name in status.get("quorum_names", [])],
        "managers": int(bool(manager_map.get("available"))) + int(manager_map.get("num_standbys", 0)),
        # The module cephadm answers; until it has a key to reach hosts with, it calls itself not available.
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
        "placed": sorted(
            str(daemon["hostname"])
            for daemon in parsed(answers.get("daemons", ""), [])
            if daemon.get("daemon_type") == "mon"
        ),
    }


def osds_of(osd_map: Mapping[str, Any]) -> dict[str, str]:
    """uuid → number of the OSDs that the cluster counts as its own; a destroyed one's disk is no longer."""
    return {
        str(entry.get("uuid", "")): str(entry["osd"])
        for entry in osd_map.get("osds", [])
        if "destroyed" not in entry.get("state", [])
    }


def _modules(listing: Mapping[str, Any]) -> list[str]:
    return sorted({*listing.get("enabled_modules", []), *listing.get("always_on_modules", [])})


# What a placement group may be besides active while it has all its copies: moved by the balancer, scrubbed, trimmed.
WHOLE = {
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
    """Placement groups that do not serve or lack a copy, by what they are."""
    found = {str(entry["state_name"]): int(entry["count"]) for entry in states}
    return {state: count for state, count in found.items() if not {"active"} <= set(state.split("+")) <= WHOLE}


def ciphers(monmap: Mapping[str, Any]) -> dict[str, Any]:
    """Which types of keys are accepted and made."""

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
