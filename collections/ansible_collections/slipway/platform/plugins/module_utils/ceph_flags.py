"""Flags of the OSD map that the platform holds for a while, and the note in the cluster of who set them."""

from __future__ import annotations

import errno
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster


def note(name: str) -> str:
    return f"slipway/held/{name}"


def read(cluster: Cluster, name: str) -> dict[str, Any]:
    """Whether the flag is set, and whether it was us."""
    held = cluster.ask([["config-key", "exists", note(name)]], strict=False)[0]["code"] != errno.ENOENT
    return {"set": name in cluster.json(["osd", "dump"]).get("flags_set", []), "held": held}


def plan(view: dict[str, Any], name: str, state: str) -> list[list[str]]:
    """The note comes first and goes last, so that no moment exists in which a flag of ours is nobody's."""
    how = ["osd", state, name]
    if state == "set":
        if view["set"]:
            return []
        return ([] if view["held"] else [["config-key", "set", note(name), "held"]]) + [how]
    if not view["held"]:
        return []
    return ([how] if view["set"] else []) + [["config-key", "rm", note(name)]]
