"""Ansible module: read an RKE2 node and the cluster it sees."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_state
short_description: Read what an RKE2 node runs, and the cluster as it sees it
description:
  - Reads systemd, the files that configure RKE2, the Kubernetes API and the members of etcd, and changes nothing.
  - The version that counts is the one the API says the node runs, never the one on disk.
  - Files are compared by digest, so that nothing secret is handed over.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
options:
  type:
    type: str
    choices: [server, agent]
    required: true
    description: What this node is.
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  version:
    type: str
    required: true
    description: The RKE2 version wanted.
  files:
    type: list
    elements: dict
    default: []
    description: The files wanted on this host.
    options:
      path:
        type: str
        required: true
        description: Where the file lies.
      sha256:
        type: str
        required: true
        description: Digest of the content wanted.
      mode:
        type: str
        required: true
        description: Mode wanted, as octal text.
      restart:
        type: bool
        default: true
        description: Whether RKE2 reads the file only when it starts.
  sysctls:
    type: dict
    default: {}
    description: Kernel settings wanted, name to value.
  users:
    type: list
    elements: str
    default: []
    description: System users wanted.
"""

EXAMPLES = r"""
- name: Read the node
  slipway.platform.rke2_state:
    type: server
    node_name: prod-rke2-server-1
    version: v1.36.3+rke2r1
  register: state
"""

RETURN = r"""
state:
  description: What was read; see module_utils/rke2_read.py, read_state.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import read_state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "type": {"type": "str", "required": True, "choices": ["server", "agent"]},
            "node_name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "sha256": {"type": "str", "required": True},
                    "mode": {"type": "str", "required": True},
                    "restart": {"type": "bool", "default": True},
                },
            },
            "sysctls": {"type": "dict", "default": {}},
            "users": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, state=read_state(module.params))


if __name__ == "__main__":
    main()
