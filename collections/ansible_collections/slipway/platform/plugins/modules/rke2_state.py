"""Ansible module: read the status of an RKE2 node and of its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_state
short_description: Read the status of an RKE2 node and of the cluster in its view
description:
  - Reads systemd, the files that configure RKE2, the Kubernetes API and the members of etcd, and changes nothing.
  - The running version is the one that the API reports for the node, not the one on disk.
  - Files are compared by digest, so that no secret is passed to the module.
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
    description: Type of this node.
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  version:
    type: str
    required: true
    description: The desired RKE2 version.
  files:
    type: list
    elements: dict
    default: []
    description: The desired files on this host.
    options:
      path:
        type: str
        required: true
        description: Path of the file.
      sha256:
        type: str
        required: true
        description: Digest of the desired content.
      mode:
        type: str
        required: true
        description: Desired mode, as octal text.
      restart:
        type: bool
        default: true
        description: Whether RKE2 reads the file only when it starts.
  sysctls:
    type: dict
    default: {}
    description: Desired kernel settings, name to value.
  users:
    type: list
    elements: str
    default: []
    description: Required system users.
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
  description: Status of the node; see module_utils/rke2_read.py, read_state.
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
