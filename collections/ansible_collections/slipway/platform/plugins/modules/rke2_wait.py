"""Ansible module: wait until an RKE2 cluster is healthy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_wait
short_description: Wait until nodes are Ready at their version and etcd's members vote
description:
  - Reads the cluster's status from one host until all conditions are met or the timeout ends.
  - On a server it reads the whole cluster; on an agent only the agent's own node.
  - Fails with the unmet conditions and the tail of the service's journal.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: In check mode it returns immediately.
options:
  type:
    type: str
    choices: [server, agent]
    required: true
    description: Type of the host that the status is read from.
  node_name:
    type: str
    required: true
    description: Node name of the host that the status is read from.
  nodes:
    type: list
    elements: str
    required: true
    description: Nodes that have to be Ready.
  version:
    type: str
    description: RKE2 version that they have to run.
  version_nodes:
    type: list
    elements: str
    description: "Nodes to which O(version) applies. Default: all of O(nodes)."
  members:
    type: list
    elements: str
    default: []
    description: Servers that have to be voting members of etcd and reachable; no member may be a learner.
  api_address:
    type: str
    description: On an agent, address of the API for when the agent's local load balancer does not respond.
  started_after:
    type: float
    default: 0
    description:
      - Seconds since 1970 after which the service's process has to have started. The process that a restart replaces
        still responds for a moment; this distinguishes the new process from the old one.
  release_wanted:
    type: bool
    default: false
    description: Whether to return the installed release and the ingress certificate of the host, too.
  timeout_seconds:
    type: int
    required: true
    description: Seconds until the module fails.
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
cordoned:
  description: Nodes that are unschedulable.
  returned: with O(release_wanted) when no condition is unmet
  type: list
  elements: str
ingress_certificate:
  description: The ingress certificate in the host's manifests folder, PEM; empty where there is none.
  returned: with O(release_wanted)
  type: str
serving_certificate:
  description: The certificate of the host's API server, PEM; empty where there is none.
  returned: with O(release_wanted)
  type: str
release:
  description: Lines of C(rke2 --version); empty without an RKE2 binary that prints them.
  returned: with O(release_wanted)
  type: list
  elements: str
waited_seconds:
  description: Seconds that the module waited.
  returned: always
  type: float
unmet:
  description: Conditions that were unmet at the end.
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
    read_serving_certificate,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0
WHAT = "{}: its view of the cluster has unmet conditions"
RESTARTS_TOLERATED = 10
"""systemd restarts a joining server a few times; with a wrong configuration the restarts never end."""


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
    parameters = module.params
    if module.check_mode:
        module.exit_json(changed=False, waited_seconds=0.0, unmet=[])
    installed: dict[str, Any] = {}
    if parameters["release_wanted"]:
        installed = {
            "release": read_release(),
            "ingress_certificate": (read_certificate() or {}).get("pem", ""),
            "serving_certificate": read_serving_certificate(),
        }
    unit = f"rke2-{parameters['type']}.service"
    name, started_at = parameters["node_name"], time.monotonic()
    restarts = read_service(unit)["restarts"]

    def read() -> dict[str, Any]:
        server = parameters["type"] == "server"
        return {
            "api": read_api() if server else read_own_node(name, parameters["api_address"]),
            "etcd": read_etcd() if parameters["members"] else None,
        }

    def unmet_conditions(view: dict[str, Any]) -> list[str]:
        service = read_service(unit)
        conditions = unmet_service(service, unit, parameters["started_after"]) + unmet(
            view,
            nodes=parameters["nodes"],
            version=parameters["version"],
            version_nodes=parameters["version_nodes"],
            members=parameters["members"],
        )
        if conditions and service["restarts"] - restarts > RESTARTS_TOLERATED:
            raise NotMet(WHAT.format(name), conditions, time.monotonic() - started_at, view)
        return conditions

    try:
        view = wait_until(
            WHAT.format(name),
            read,
            unmet_conditions,
            timeout_seconds=parameters["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
        )
    except NotMet as error:
        service = read_service(unit)
        module.fail_json(
            msg=(
                f"{error}. "
                f"{unit} is {service['state']} ({service['sub_state']}, {service['restarts']} restarts). "
                f"Check journalctl -u {unit} and run again; the run resumes at this step.\n{journal_tail(unit)}"
            ),
            waited_seconds=round(error.waited_seconds, 1),
            unmet=error.conditions,
            **installed,
        )
    if parameters["release_wanted"]:
        installed["cordoned"] = sorted(name for name, node in view["api"]["nodes"].items() if node["unschedulable"])
    waited_seconds = round(time.monotonic() - started_at, 1)
    module.exit_json(changed=False, waited_seconds=waited_seconds, unmet=[], **installed)


if __name__ == "__main__":
    main()
