"""Ansible module: take a snapshot of etcd and prove that it is there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_snapshot
short_description: Take a snapshot of etcd on an RKE2 server and verify it
description:
  - Saves a snapshot, then reads the list of snapshots; fails unless the new one is listed, ready and not empty.
  - The command's own exit code is not enough, it is 0 even when an upload failed.
  - Keeps the newest O(keep) snapshots of that name on this server.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says that it would, and does nothing.
options:
  name:
    type: str
    required: true
    description: Prefix of the snapshot's name; RKE2 appends the node and the time.
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  keep:
    type: int
    default: 5
    description: How many snapshots of that name are kept on this server.
  timeout_seconds:
    type: int
    default: 300
    description: Seconds that each command may take.
"""

EXAMPLES = r"""
- name: Take a snapshot before the upgrade
  slipway.platform.rke2_snapshot:
    name: before-upgrade
    node_name: prod-rke2-server-1
"""

RETURN = r"""
snapshot:
  description: Name, location and size of the snapshot.
  returned: when it was taken
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import BINARY
from ansible_collections.slipway.platform.plugins.module_utils.rke2_snapshots import find_new, parse_list


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "node_name": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 5},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=True)

    def rke2(*arguments: str) -> str:
        command = ["timeout", str(given["timeout_seconds"]), str(BINARY), "etcd-snapshot", *arguments]
        code, output, errors = module.run_command(command)
        if code != 0:
            module.fail_json(
                msg=(
                    f"No snapshot of etcd could be taken on {given['node_name']}, so nothing was restarted: "
                    f"rke2 etcd-snapshot {arguments[0]} ended with {code}: {errors.strip()[-1000:]}"
                )
            )
        return str(output)

    before = parse_list(rke2("ls", "-o", "json"))
    rke2("save", "--name", given["name"])
    try:
        made = find_new(before, parse_list(rke2("ls", "-o", "json")), given["name"], given["node_name"])
    except ValueError as error:
        module.fail_json(
            msg=f"On {given['node_name']} {error}. Nothing was restarted; look at the disk and the journal."
        )
    rke2("prune", "--name", given["name"], "--snapshot-retention", str(given["keep"]))
    module.exit_json(changed=True, snapshot=made)


if __name__ == "__main__":
    main()
