"""Filter that collects the machines of an environment for the role provision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

INPUTS = ("server_types", "image", "placement_group", "volumes", "private_ip")


def machines(
    hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], order: Sequence[str]
) -> list[dict[str, Any]]:
    """Each host of the groups in `order`, with its `provision_*` values and its groups among them.

    The first of them is the main group; the public openings of all of them apply to the host.
    """
    found: dict[str, dict[str, Any]] = {}
    for group in order:
        for host in groups.get(group, ()):
            if host in found:
                continue
            values = hostvars[host]
            machine = {name: values[f"provision_{name}"] for name in INPUTS if f"provision_{name}" in values}
            for name in ("private_ip", "server_types", "image"):
                if name not in machine:
                    raise AnsibleFilterError(f"host {host} has no provision_{name}")
            memberships = [name for name in order if host in groups.get(name, ())]
            found[host] = {"name": host, "group": group, "groups": memberships, **machine}
    return list(found.values())


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"machines": machines}
