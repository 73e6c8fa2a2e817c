"""Filters of the role ceph: what its hosts were seen to be, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_founding import founding
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import (
    as_text,
    memory_target,
    version_faults,
)

VOLUME = re.compile(r"ceph(-[a-z0-9]+)?")


def devices(volumes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of a host's volumes (hcloud_volumes) that belong to Ceph: their names are ceph or begin with ceph-."""
    if not isinstance(volumes, Mapping):
        raise AnsibleFilterError(f"ceph_devices wants a host's hcloud_volumes, not {volumes!r}")
    return [
        {"path": volume["path"], "size_gb": volume["size_gb"]}
        for name, volume in sorted(volumes.items())
        if VOLUME.fullmatch(name)
    ]


def states(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    """What was read of every member; one that was not part of this run is left out."""
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
            "ceph_founding": founding,
            "ceph_ini": ini,
            "ceph_memory_target": memory_target,
            "ceph_version_faults": version_faults,
        }
