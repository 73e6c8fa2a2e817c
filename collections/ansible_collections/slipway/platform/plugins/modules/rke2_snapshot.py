"""Ansible module: save a snapshot of etcd and verify it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_snapshot
short_description: Save a snapshot of etcd on an RKE2 server and verify it
description:
  - Saves a snapshot, then lists the snapshots; fails unless the new one is listed, ready and not empty, and in
    O(bucket) too, with the same size.
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
  bucket:
    type: str
    default: ""
    description: Bucket that RKE2 uploads snapshots to; empty when it uploads none.
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

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.output import shortened
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import BINARY, journal_since
from ansible_collections.slipway.platform.plugins.module_utils.rke2_snapshots import (
    find_new,
    parse_list,
    upload_error,
    upload_fault,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "node_name": {"type": "str", "required": True},
            "bucket": {"type": "str", "default": ""},
            "retention": {"type": "int", "default": 5},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if module.check_mode:
        module.exit_json(changed=True)

    def fail(reason: str) -> None:
        module.fail_json(
            msg=f"{parameters['node_name']}: {reason}. Nothing was restarted. Check the disk, the bucket and the "
            "journal of rke2-server, then run again."
        )

    def rke2(*arguments: str) -> tuple[str, str]:
        """Standard output, and the log on standard error."""
        command = ["timeout", str(parameters["timeout_seconds"]), str(BINARY), "etcd-snapshot", *arguments]
        code, output, errors = module.run_command(command)
        if code != 0:
            fail(f"rke2 etcd-snapshot {arguments[0]} exited with {code}: {shortened(errors)}")
        return str(output), str(errors)

    started = int(time.time())
    before = parse_list(rke2("ls", "-o", "json")[0])
    _, log = rke2("save", "--name", parameters["name"])
    after = parse_list(rke2("ls", "-o", "json")[0])
    try:
        snapshot = find_new(before, after, parameters["name"], parameters["node_name"])
    except ValueError as error:
        fail(str(error))
    if parameters["bucket"] and (fault := upload_fault(snapshot, after, parameters["bucket"])):
        reported = upload_error(log) or upload_error(journal_since("rke2-server.service", started))
        fail(f"{fault}: {reported or 'RKE2 logged no error'}")
    rke2("prune", "--name", parameters["name"], "--snapshot-retention", str(parameters["retention"]))
    module.exit_json(changed=True, snapshot=snapshot)


if __name__ == "__main__":
    main()
