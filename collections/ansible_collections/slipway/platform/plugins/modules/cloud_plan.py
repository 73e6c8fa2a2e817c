#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_plan
short_description: Compare an environment's wanted machines with its Hetzner Cloud project
description:
  - Reads the project once and says what has to be created or changed, in the words that the M(hetzner.hcloud.server)
    family of modules wants. It changes nothing itself.
  - Fails when the way to what is wanted would destroy, move or stop a server, a volume or the network whose name was
    not given, or when a name is taken by an object of somebody else. All refusals are listed at once.
  - In check mode it reports C(changed) when something would be changed, so that a check run needs no further task.
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
    description: Locations to try for a new server, in this order.
    type: list
    elements: str
    required: true
  public_keys:
    description: SSH public keys a new server is made with.
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
      groups: {description: All its groups when it is shared., type: list, elements: str, default: []}
      private_ip: {description: Its address in the subnet., type: str, required: true}
      server_types: {description: Types to try in this order., type: list, elements: str, required: true}
      image: {description: Name of its system image., type: str, required: true}
      placement_group: {description: Placement group to spread it in; none when empty., type: str, default: ""}
      volumes:
        description: Volumes it has.
        type: list
        elements: dict
        default: []
        options:
          name: {description: Name behind the server's name., type: str, required: true}
          size_gb: {description: Size in GB., type: int, required: true}
  openings:
    description: What the public side lets in; everything else is closed.
    type: list
    elements: dict
    default: []
    options:
      name: {description: What it is for., type: str, required: true}
      group: {description: The group of servers that opens it; all when empty., type: str, default: ""}
      protocol: {description: Protocol., type: str, required: true, choices: [tcp, udp, icmp]}
      port: {description: Port or range; none for icmp., type: str}
      sources: {description: Ranges that may come in., type: list, elements: str, required: true}
  allow_replace:
    description: Servers, volumes and networks that may be destroyed and made again, by name.
    type: list
    elements: str
    default: []
  allow_restart:
    description: Servers that may be stopped for a change, by name.
    type: list
    elements: str
    default: []
  hosts:
    description: Names of the servers that this run makes and changes; all unless given. Nothing of others is deleted.
    type: list
    elements: str
  settle_seconds:
    description: How long to wait for servers that are starting, stopping or locked, as a killed run leaves them.
    type: int
    default: 120
attributes:
  check_mode: {support: full, description: Reports what would be changed.}
  diff_mode: {support: full, description: One line a change.}
"""

EXAMPLES = r"""
- name: Compare what is wanted with what is there
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
  description: What to do; see C(module_utils/plan.py) for every field.
  returned: always
  type: dict
changes:
  description: The same as sentences.
  returned: always
  type: list
  elements: str
unclaimed:
  description: Objects labelled as the environment's that the inventory does not want; they are left alone.
  returned: always
  type: list
  elements: str
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.cloud import PROJECT_OPTIONS, Cloud, CloudError
from ansible_collections.slipway.platform.plugins.module_utils.plan import KINDS, TRANSIENT, Desired, make_plan

SETTLE_POLL_SECONDS = 0.5


def read_project(cloud: Cloud) -> dict[str, list[dict[str, Any]]]:
    with ThreadPoolExecutor(4) as pool:
        kinds = (*KINDS, "server_types")
        return dict(zip(kinds, pool.map(cloud.list, kinds), strict=True))


def settle(cloud: Cloud, project: dict[str, list[dict[str, Any]]], names: set[str], seconds: int) -> None:
    """Wait until none of the named servers is on its way to another state."""
    deadline = time.monotonic() + seconds
    while moving := [
        server["name"]
        for server in project["servers"]
        if server["name"] in names and (server["status"] in TRANSIENT or server.get("locked"))
    ]:
        if time.monotonic() > deadline:
            raise CloudError(
                f"{', '.join(moving)} did not come to rest within {seconds} seconds (an action of an earlier run or of "
                "somebody else is still under way); look at the actions in the cloud console and run again."
            )
        time.sleep(SETTLE_POLL_SECONDS)
        project["servers"] = cloud.list("servers")


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
    for sentence in plan.unclaimed:
        module.warn(sentence)
    servers = {name: asdict(server) | {"changes": server.changes} for name, server in sorted(plan.servers.items())}
    module.exit_json(
        changed=module.check_mode and bool(plan.changes),
        plan=asdict(plan) | {"servers": servers, "shared_changes": plan.shared_changes},
        changes=plan.changes,
        unclaimed=plan.unclaimed,
        diff={"before": "", "after": "".join(f"{sentence}\n" for sentence in plan.changes)},
    )


if __name__ == "__main__":
    main()
