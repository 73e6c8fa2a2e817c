#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_objects
short_description: List the objects of an environment in a Hetzner Cloud project
description:
  - Lists servers, volumes, networks, firewalls, placement groups and SSH keys that carry the environment's owner label.
  - Reports networks and volumes that foreign servers or load balancers use, which a deletion detaches without an error.
author: [Slipway]
extends_documentation_fragment: [slipway.platform.cloud]
attributes:
  check_mode: {support: full, description: Only reads.}
  diff_mode: {support: none, description: Only reads.}
"""

EXAMPLES = r"""
- name: Collect the objects of the environment
  slipway.platform.cloud_objects:
    api_token: "{{ platform_hcloud_token }}"
    api_endpoint: "{{ platform_hcloud_endpoint }}"
    environment: dev
  register: owned_objects
"""

RETURN = r"""
objects:
  description: Kind to its objects, each with C(id), C(name) and C(protected).
  returned: always
  type: dict
descriptions:
  description: One line for each object.
  returned: always
  type: list
  elements: str
in_use:
  description: One sentence for each network or volume that a foreign server or load balancer uses.
  returned: always
  type: list
  elements: str
protected:
  description: Names of objects that are protected against deletion.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.cloud import PROJECT_OPTIONS, Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.plan import ENVIRONMENT_LABEL, KINDS


def summary(thing: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": thing["id"],
        "name": thing["name"],
        "protected": bool((thing.get("protection") or {}).get("delete")),
    }


def describe(kind: str, thing: dict[str, Any]) -> str:
    """One line with what identifies an object."""
    word = kind[:-1].replace("_", " ")
    if kind == "servers":
        address = ((thing["public_net"] or {}).get("ipv4") or {}).get("ip", "no public IPv4")
        return f"{word} {thing['name']} ({thing['server_type']['name']}, {thing['location']['name']}, {address})"
    if kind == "volumes":
        return f"{word} {thing['name']} ({thing['size']} GB, {thing['location']['name']})"
    if kind == "networks":
        return f"{word} {thing['name']} ({thing['ip_range']})"
    return f"{word} {thing['name']}"


def in_use(found: dict[str, list[dict[str, Any]]], servers: list[dict[str, Any]]) -> list[str]:
    """Foreign users of networks and volumes, which a deletion would detach without an error."""
    own_ids = {server["id"] for server in found["servers"]}
    servers_by_id = {server["id"]: f"server {server['name']}" for server in servers}
    users = [
        (
            f"network {network['name']}",
            [servers_by_id.get(id, f"server {id}") for id in network["servers"] if id not in own_ids],
        )
        for network in found["networks"]
    ]
    users += [
        (f"network {network['name']}", [f"load balancer {id}" for id in network.get("load_balancers") or ()])
        for network in found["networks"]
    ]
    users += [
        (f"volume {volume['name']}", [servers_by_id.get(volume["server"], f"server {volume['server']}")])
        for volume in found["volumes"]
        if volume["server"] is not None and volume["server"] not in own_ids
    ]
    return [f"{used} is used by {', '.join(names)}" for used, names in users if names]


def main() -> None:
    module = AnsibleModule(argument_spec=PROJECT_OPTIONS, supports_check_mode=True)
    cloud = Cloud(module.params["api_endpoint"], module.params["api_token"])
    selector = f"{ENVIRONMENT_LABEL}={module.params['environment']}"
    try:
        found = {kind: cloud.list(kind, [("label_selector", selector)]) for kind in KINDS}
        servers = cloud.list("servers") if found["networks"] or found["volumes"] else []
    except CloudError as error:
        module.fail_json(msg=str(error))
    objects = {kind: [summary(thing) for thing in things] for kind, things in found.items()}
    module.exit_json(
        changed=False,
        objects=objects,
        in_use=in_use(found, servers),
        descriptions=[describe(kind, thing) for kind, things in found.items() for thing in things],
        protected=[thing["name"] for things in objects.values() for thing in things if thing["protected"]],
    )


if __name__ == "__main__":
    main()
