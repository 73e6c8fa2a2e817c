"""Ansible module: remove what a restored cluster stores about nodes that changed since the snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_restore_nodes
short_description: Remove Node objects of former servers and the passwords of nodes from a restored cluster
description:
  - Waits for the API on this server. Deletes the Node objects of servers that are not in O(servers), and the Secrets
    C(<node>.node-password.rke2) of all nodes, because a host that was rebuilt since the snapshot has another password,
    with which it would be rejected. Each node stores its password again when it registers.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Returns changed without reading the cluster, which is not restored then.
options:
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  servers:
    type: list
    elements: str
    required: true
    description: Node names of all servers.
  timeout_seconds:
    type: int
    required: true
    description: Seconds until the module fails.
"""

EXAMPLES = r"""
- name: Remove the nodes of former servers
  slipway.platform.rke2_restore_nodes:
    node_name: prod-rke2-server-1
    servers: [prod-rke2-server-1, prod-rke2-server-2, prod-rke2-server-3]
    timeout_seconds: 600
"""

RETURN = r"""
removed:
  description: Names of the deleted Node objects.
  returned: always
  type: list
  elements: str
"""

import http.client
import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import (
    ReadError,
    journal_tail,
    read_admin,
    request,
)
from ansible_collections.slipway.platform.plugins.module_utils.rke2_restore import password_secrets, stale_nodes
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0


def call(path: str, method: str = "GET") -> dict[str, Any]:
    """One request as the administrator; a missing object is an empty answer."""
    server, context, _ = read_admin()
    status, text = request(server, context, path, method=method, timeout=10)
    if status == 404:
        return {}
    if status != 200:
        raise ReadError(f"{method} {path} returned {status}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def clean(servers: list[str]) -> list[str]:
    removed = stale_nodes(call("/api/v1/nodes")["items"], servers)
    for name in removed:
        call(f"/api/v1/nodes/{name}", "DELETE")
    for name in password_secrets(call("/api/v1/namespaces/kube-system/secrets")["items"]):
        call(f"/api/v1/namespaces/kube-system/secrets/{name}", "DELETE")
    return removed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "servers": {"type": "list", "elements": "str", "required": True},
            "timeout_seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if module.check_mode:
        module.exit_json(changed=True, removed=[])
    try:
        removed = wait_until(
            f"{parameters['node_name']}: its API",
            lambda: clean(parameters["servers"]),
            lambda names: [],
            timeout_seconds=parameters["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=(OSError, http.client.HTTPException, ReadError, ValueError, KeyError),
        )
    except NotMet as error:
        module.fail_json(
            msg=f"{error}. Check journalctl -u rke2-server, then run the same command again.\n"
            f"{journal_tail('rke2-server.service')}"
        )
    module.exit_json(changed=True, removed=removed)


if __name__ == "__main__":
    main()
