"""Filters of the role ceph over the state of its hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_bootstrap import bootstrap_plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import (
    as_text,
    memory_target,
    version_faults,
)

VOLUME = re.compile(r"ceph(-[a-z0-9]+)?")


def devices(volumes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The volumes of a host (hcloud_volumes) for Ceph: those named ceph or ceph-*."""
    if not isinstance(volumes, Mapping):
        raise AnsibleFilterError(f"ceph_devices: {volumes!r} is not a dict. Pass a host's hcloud_volumes.")
    return [
        {"path": volume["path"], "size_gb": volume["size_gb"]}
        for name, volume in sorted(volumes.items())
        if VOLUME.fullmatch(name)
    ]


def states(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    """State of every member that is part of this run."""
    return {
        name: hostvars[name]["__ceph_read"]["state"]
        for name in members
        if name in hostvars and "state" in (hostvars[name].get("__ceph_read") or {})
    }


def ini(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Options by section as the text of a ceph.conf."""
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {as_text(value)}\n" for name, value in options.items()) + "\n"
        for section, options in config.items()
    )


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ceph_devices": devices,
            "ceph_states": states,
            "ceph_bootstrap": bootstrap_plan,
            "ceph_ini": ini,
            "ceph_memory_target": memory_target,
            "ceph_version_faults": version_faults,
        }
