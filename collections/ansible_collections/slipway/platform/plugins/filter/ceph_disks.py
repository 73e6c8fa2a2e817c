"""Filters over what ceph_disk found on the members of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import cluster_faults


def disks(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, list[Any]]:
    """The verdicts of every member; one that was not part of this run is left out."""
    return {
        name: list(hostvars[name]["__ceph_disks"]["disks"])
        for name in members
        if name in hostvars and "disks" in (hostvars[name].get("__ceph_disks") or {})
    }


def faults(verdicts: Mapping[str, Sequence[Any]]) -> list[str]:
    """All faults of all disks as sentences; see module_utils/ceph_disk_plan.py."""
    return cluster_faults({host: list(found) for host, found in verdicts.items()})


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"ceph_disks": disks, "ceph_disk_faults": faults}
