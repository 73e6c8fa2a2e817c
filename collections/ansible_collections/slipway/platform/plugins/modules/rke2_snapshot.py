"""Ansible module: save a snapshot of etcd and verify it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_snapshot
short_description: Save a snapshot of etcd on an RKE2 server and verify it
description:
  - Saves a snapshot, then lists the snapshots; fails unless the new one is listed, ready and not empty.
  - The exit code alone is not sufficient, it is 0 even when an upload failed.
  - Retains the newest O(retention) snapshots of that name on this server.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Returns changed without saving a snapshot.
options:
  name:
    type: str
    required: true
    description: Prefix of the snapshot's name; RKE2 appends the node and the time.
  node_name:
    type: str
    required: true
    description: The node's name in Kubernetes.
  retention:
    type: int
    default: 5
    description: Number of snapshots of that name to retain on this server.
  timeout_seconds:
    type: int
    default: 300
    description: Timeout of each command in seconds.
"""

EXAMPLES = r"""
- name: Save a snapshot before the upgrade
  slipway.platform.rke2_snapshot:
    name: before-upgrade
    node_name: prod-rke2-server-1
"""

RETURN = r"""
snapshot:
  description: Name, location and size of the snapshot.
  returned: when saved
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
            "retention": {"type": "int", "default": 5},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if module.check_mode:
        module.exit_json(changed=True)

    def rke2(*arguments: str) -> str:
        command = ["timeout", str(parameters["timeout_seconds"]), str(BINARY), "etcd-snapshot", *arguments]
        code, output, errors = module.run_command(command)
        if code != 0:
            module.fail_json(
                msg=(
                    f"{parameters['node_name']}: rke2 etcd-snapshot {arguments[0]} exited with {code}: "
                    f"{errors.strip()[-1000:] or 'no output'}. Nothing was restarted. "
                    "Check the disk and the journal of rke2-server, then run again."
                )
            )
        return str(output)

    before = parse_list(rke2("ls", "-o", "json"))
    rke2("save", "--name", parameters["name"])
    try:
        snapshot = find_new(before, parse_list(rke2("ls", "-o", "json")), parameters["name"], parameters["node_name"])
    except ValueError as error:
        module.fail_json(
            msg=f"{parameters['node_name']}: {error}. Nothing was restarted. Check the disk and the journal of "
            "rke2-server, then run again."
        )
    rke2("prune", "--name", parameters["name"], "--snapshot-retention", str(parameters["retention"]))
    module.exit_json(changed=True, snapshot=snapshot)


if __name__ == "__main__":
    main()
