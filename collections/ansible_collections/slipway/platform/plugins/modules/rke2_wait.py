"""Ansible module: wait until an RKE2 cluster is as wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_wait
short_description: Wait until nodes are Ready at their version and etcd's members vote
description:
  - Looks from one host at the running cluster until nothing is unmet, with a deadline of its own.
  - On a server it sees the whole cluster; on an agent only the agent's own node.
  - Fails with a sentence that names what is unmet, and the tail of the service's journal.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: In check mode it returns at once.
options:
  type:
    type: str
    choices: [server, agent]
    required: true
    description: What the host that is looked from is.
  node_name:
    type: str
    required: true
    description: The name of the node that is looked from.
  nodes:
    type: list
    elements: str
    required: true
    description: Nodes that have to be Ready.
  version:
    type: str
    description: Version at which they have to be.
  version_nodes:
    type: list
    elements: str
    description: Nodes to which O(version) applies; all of O(nodes) unless given.
  members:
    type: list
    elements: str
    default: []
    description: Servers that have to be voting members of etcd and to answer; no member may be a learner.
  api_address:
    type: str
    description: On an agent, where the API is asked when the agent's own balancer does not answer on loopback.
  started_after:
    type: float
    default: 0
    description:
      - Seconds since 1970 after which the service's process has to have started. What a restart is to replace still
        answers for a moment after it was asked for; this tells the new from the old.
  release_wanted:
    type: bool
    default: false
    description: Whether to return the release and the ingress certificate that the host carries, too.
  timeout_seconds:
    type: int
    required: true
    description: Seconds until it gives up.
"""

EXAMPLES = r"""
- name: Wait for the second server
  slipway.platform.rke2_wait:
    type: server
    node_name: prod-rke2-server-2
    nodes: [prod-rke2-server-2]
    version: v1.36.3+rke2r1
    members: [prod-rke2-server-1, prod-rke2-server-2]
    timeout_seconds: 300
"""

RETURN = r"""
ingress_certificate:
  description: The certificate of the ingress that the host hands to the cluster, PEM; empty where there is none.
  returned: with O(release_wanted)
  type: str
release:
  description: Lines of C(rke2 --version), none when there is no program that prints them.
  returned: with O(release_wanted)
  type: list
  elements: str
waited_seconds:
  description: How long it took.
  returned: always
  type: float
unmet:
  description: What was still unmet at the end.
  returned: always
  type: list
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import unmet, unmet_service
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import (
    journal_tail,
    read_api,
    read_certificate,
    read_etcd,
    read_own_node,
    read_release,
    read_service,
)

POLL_SECONDS = 1.0
RESTARTS_TOLERATED = 10
"""A joining server may end and be started again a few times; a wrong configuration does so for ever."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "type": {"type": "str", "required": True, "choices": ["server", "agent"]},
            "node_name": {"type": "str", "required": True},
            "nodes": {"type": "list", "elements": "str", "required": True},
            "version": {"type": "str"},
            "version_nodes": {"type": "list", "elements": "str"},
            "members": {"type": "list", "elements": "str", "default": []},
            "api_address": {"type": "str"},
            "started_after": {"type": "float", "default": 0.0},
            "release_wanted": {"type": "bool", "default": False},
            "timeout_seconds": {"type": "int", "required": True},
        },
        required_if=[("type", "agent", ["api_address"])],
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False, waited_seconds=0.0, unmet=[])
    carried: dict[str, Any] = {"release": [], "ingress_certificate": ""}
    if given["release_wanted"]:
        carried = {"release": read_release(), "ingress_certificate": (read_certificate() or {}).get("pem", "")}
    unit = f"rke2-{given['type']}.service"
    began = time.monotonic()
    restarts = read_service(unit)["restarts"]
    while True:
        server = given["type"] == "server"
        view = {
            "api": read_api() if server else read_own_node(given["node_name"], given["api_address"]),
            "etcd": read_etcd() if given["members"] else None,
        }
        left = unmet_service(service := read_service(unit), unit, given["started_after"]) + unmet(
            view,
            nodes=given["nodes"],
            version=given["version"],
            version_nodes=given["version_nodes"],
            members=given["members"],
        )
        waited = round(time.monotonic() - began, 1)
        if not left:
            module.exit_json(changed=False, waited_seconds=waited, unmet=[], **carried)
        if waited + POLL_SECONDS > given["timeout_seconds"] or service["restarts"] - restarts > RESTARTS_TOLERATED:
            break
        time.sleep(POLL_SECONDS)
    module.fail_json(
        msg=(
            f"Seen from {given['node_name']}, after {waited:.0f} s: {'; '.join(left)}. "
            f"{unit} there is {service['state']} ({service['sub_state']}, {service['restarts']} restarts). "
            f"Look at journalctl -u {unit} and run again: the run goes on where it stopped.\n{journal_tail(unit)}"
        ),
        waited_seconds=waited,
        unmet=left,
        **carried,
    )


if __name__ == "__main__":
    main()
