"""Flags of the OSD map that the platform sets for a while, and the config-key that marks them as set by it."""

from __future__ import annotations

import errno
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster


def marker_key(name: str) -> str:
    return f"slipway/held/{name}"


def read(cluster: Cluster, name: str) -> dict[str, Any]:
    """Whether the flag is set, and whether the platform set it."""
    held = cluster.execute([["config-key", "exists", marker_key(name)]], strict=False)[0]["code"] != errno.ENOENT
    return {"set": name in cluster.json(["osd", "dump"]).get("flags_set", []), "held": held}


def plan(view: dict[str, Any], name: str, state: str) -> list[list[str]]:
    """The marker is set before the flag and removed after it: an interrupted run never leaves an unmarked flag."""
    command = ["osd", state, name]
    if state == "set":
        if view["set"]:
            return []
        return ([] if view["held"] else [["config-key", "set", marker_key(name), "held"]]) + [command]
    if not view["held"]:
        return []
    return ([command] if view["set"] else []) + [["config-key", "rm", marker_key(name)]]
