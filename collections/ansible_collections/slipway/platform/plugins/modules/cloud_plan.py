#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_plan
short_description: Plan the changes of an environment's Hetzner Cloud project
description:
  - Compares the project with the declared machines and returns what to create or change, as options of
    M(hetzner.hcloud.server) and its sibling modules. Read-only.
  - Fails if a change would destroy, move or stop a server, a volume or the network that is not confirmed by name, or
    if a name is taken by a foreign object. All refused changes are listed at once.
  - In check mode it reports C(changed) if something would change, so that a check run needs no further task.
author: [Slipway]
extends_documentation_fragment: [slipway.platform.cloud]
options:
  network_cidr:
    description: Range of the private network.
    type: str
    required: true
  subnet_cidr:
    description: Range of its one subnet.
    type: str
    required: true
  network_zone:
    description: Network zone of the subnet.
    type: str
    required: true
  locations:
    description: Locations for a new server, in order of preference.
    type: list
    elements: str
    required: true
  public_keys:
    description: SSH public keys of a new server.
    type: list
    elements: str
    required: true
  machines:
    description: Every server of the environment.
    type: list
    elements: dict
    required: true
    options:
      name: {description: Name of the server., type: str, required: true}
      group: {description: Group it belongs to; label and firewall., type: str, required: true}
      groups: {description: All its groups, if it is in several., type: list, elements: str, default: []}
      private_ip: {description: Its address in the subnet., type: str, required: true}
      server_types: {description: Types in order of preference., type: list, elements: str, required: true}
      image: {description: Name of its system image., type: str, required: true}
      placement_group: {description: Its placement group; none when empty., type: str, default: ""}
      volumes:
        description: Its volumes.
        type: list
        elements: dict
        default: []
        options:
          name: {description: Name, appended to the server's name., type: str, required: true}
          size_gb: {description: Size in GB., type: int, required: true}
  openings:
    description: Openings of the public firewalls; all other ports are closed.
    type: list
    elements: dict
    default: []
    options:
      name: {description: Purpose of the opening., type: str, required: true}
      group: {description: Group of servers that it applies to; all when empty., type: str, default: ""}
      protocol: {description: Protocol., type: str, required: true, choices: [tcp, udp, icmp]}
      port: {description: Port or range; none for icmp., type: str}
      sources: {description: Source CIDRs., type: list, elements: str, required: true}
  allow_replace:
    description: Servers, volumes and networks that may be destroyed and created again, by name.
    type: list
    elements: str
    default: []
  allow_restart:
    description: Servers that may be stopped for a change, by name.
    type: list
    elements: str
    default: []
  hosts:
    description: Names of the servers that this run may change; all when omitted. Objects of others are not deleted.
    type: list
    elements: str
  settle_seconds:
    description: Seconds to wait for servers that are starting, stopping or locked, for example after a killed run.
    type: int
    default: 120
attributes:
  check_mode: {support: full, description: Reports what would change.}
  diff_mode: {support: full, description: One line for each change.}
"""

EXAMPLES = r"""
- name: Compare the inventory with the project
  slipway.platform.cloud_plan:
    api_token: "{{ provision_hcloud_token }}"
    api_endpoint: "{{ provision_hcloud_endpoint }}"
    environment: prod
    network_cidr: 10.40.0.0/16
    subnet_cidr: 10.40.1.0/24
    network_zone: eu-central
    locations: [fsn1, nbg1]
    public_keys: ["ssh-ed25519 AAAA… admin"]
    machines:
      - name: prod-lb-1
        group: load_balancer
        private_ip: 10.40.1.10
        server_types: [cx23]
        image: debian-13
  register: __provision_plan
"""

RETURN = r"""
plan:
  description: The plan; see C(module_utils/plan.py) for every field.
  returned: always
  type: dict
changes:
  description: The same, one line for each change.
  returned: always
  type: list
  elements: str
undeclared:
  description: Objects with the environment's label that the inventory does not declare; they are not changed.
  returned: always
  type: list
  elements: str
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.cloud import PROJECT_OPTIONS, Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.plan import KINDS, TRANSIENT, Desired, make_plan
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

SETTLE_POLL_SECONDS = 0.5


def read_project(cloud: Cloud) -> dict[str, list[dict[str, Any]]]:
    with ThreadPoolExecutor(4) as pool:
        kinds = (*KINDS, "server_types")
        return dict(zip(kinds, pool.map(cloud.list, kinds), strict=True))


def settle(cloud: Cloud, project: dict[str, list[dict[str, Any]]], names: set[str], seconds: int) -> None:
    """Wait until none of the named servers is in a transitional state or locked."""

    def unsettled(found: list[dict[str, Any]]) -> list[str]:
        return [
            f"{server['name']} is {'locked' if server.get('locked') else server['status']}"
            for server in found
            if server["name"] in names and (server["status"] in TRANSIENT or server.get("locked"))
        ]

    if not unsettled(project["servers"]):
        return
    try:
        project["servers"] = wait_until(
            "Servers",
            lambda: cloud.list("servers"),
            unsettled,
            timeout_seconds=seconds,
            interval_seconds=SETTLE_POLL_SECONDS,
        )
    except NotMet as error:
        raise CloudError(
            f"{error} (an action of an earlier run or of another client is still running). Check the actions in the "
            "cloud console and run again."
        ) from error


def argument_spec() -> dict[str, Any]:
    text = {"type": "str", "required": True}
    texts = {"type": "list", "elements": "str", "required": True}
    volume = {"name": text, "size_gb": {"type": "int", "required": True}}
    machine = {
        "name": text,
        "group": text,
        "groups": {"type": "list", "elements": "str", "default": []},
        "private_ip": text,
        "server_types": texts,
        "image": text,
        "placement_group": {"type": "str", "default": ""},
        "volumes": {"type": "list", "elements": "dict", "options": volume, "default": []},
    }
    opening = {
        "name": text,
        "group": {"type": "str", "default": ""},
        "protocol": {"type": "str", "required": True, "choices": ["tcp", "udp", "icmp"]},
        "port": {"type": "str"},
        "sources": texts,
    }
    return {
        **PROJECT_OPTIONS,
        "network_cidr": text,
        "subnet_cidr": text,
        "network_zone": text,
        "locations": texts,
        "public_keys": texts | {"no_log": False},
        "machines": {"type": "list", "elements": "dict", "options": machine, "required": True},
        "openings": {"type": "list", "elements": "dict", "options": opening, "default": []},
        "allow_replace": {"type": "list", "elements": "str", "default": []},
        "allow_restart": {"type": "list", "elements": "str", "default": []},
        "hosts": {"type": "list", "elements": "str"},
        "settle_seconds": {"type": "int", "default": 120},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    parameters = module.params
    desired = Desired.from_parameters(parameters)
    cloud = Cloud(parameters["api_endpoint"], parameters["api_token"])
    try:
        project = read_project(cloud)
        if not module.check_mode:
            settle(cloud, project, {machine.name for machine in desired.machines}, parameters["settle_seconds"])
    except CloudError as error:
        module.fail_json(msg=str(error))
    plan = make_plan(
        desired,
        project,
        allow_replace=parameters["allow_replace"],
        allow_restart=parameters["allow_restart"],
        hosts=parameters["hosts"],
    )
    if plan.refused:
        module.fail_json(
            msg="\n".join(["Refused; nothing has been changed.", *(f"- {sentence}" for sentence in plan.refused)]),
            refused=plan.refused,
        )
    for sentence in plan.undeclared:
        module.warn(sentence)
    servers = {name: asdict(server) | {"changes": server.changes} for name, server in sorted(plan.servers.items())}
    module.exit_json(
        changed=module.check_mode and bool(plan.changes),
        plan=asdict(plan) | {"servers": servers, "shared_changes": plan.shared_changes},
        changes=plan.changes,
        undeclared=plan.undeclared,
        diff={"before": "", "after": "".join(f"{sentence}\n" for sentence in plan.changes)},
    )


if __name__ == "__main__":
    main()
