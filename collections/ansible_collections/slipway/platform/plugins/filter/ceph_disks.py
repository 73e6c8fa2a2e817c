"""Filters over the verdicts of ceph_disk on the members of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import cluster_faults


def disks(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, list[Any]]:
    """Verdicts of every member that is part of this run."""
    return {
        name: list(hostvars[name]["__ceph_disks"]["disks"])
        for name in members
        if name in hostvars and "disks" in (hostvars[name].get("__ceph_disks") or {})
    }


def faults(verdicts: Mapping[str, Sequence[Any]]) -> list[str]:
    """All faults of all disks; see module_utils/ceph_disk_plan.py."""
    return cluster_faults({host: list(disks) for host, disks in verdicts.items()})


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"ceph_disks": disks, "ceph_disk_faults": faults}
