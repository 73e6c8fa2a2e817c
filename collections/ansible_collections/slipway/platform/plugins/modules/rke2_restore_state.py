"""Ansible module: read what a restore of etcd is planned from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_restore_state
short_description: Read what a restore of etcd is planned from, on one RKE2 server
description:
  - Reads the record of an unfinished or finished restore, whether the server holds data of etcd, whether etcd has a
    quorum, and how new the local data is. Changes nothing.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
options:
  file:
    type: str
    default: ""
    description: Path of a snapshot to look for.
"""

EXAMPLES = r"""
- name: Read the progress of a restore
  slipway.platform.rke2_restore_state:
"""

RETURN = r"""
state:
  description:
    - C(record) of the restore or null, C(has_data), C(quorum), C(raft_index) of the local member or null without an
      answer, C(file_exists).
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import (
    has_data,
    read_etcd,
    read_raft_index,
    read_restore,
)


def main() -> None:
    module = AnsibleModule(argument_spec={"file": {"type": "str", "default": ""}}, supports_check_mode=True)
    file = module.params["file"]
    module.exit_json(
        changed=False,
        state={
            "record": read_restore(),
            "has_data": has_data("server"),
            "quorum": read_etcd()["error"] is None,
            "raft_index": read_raft_index(),
            "file_exists": bool(file) and Path(file).is_file(),
        },
    )


if __name__ == "__main__":
    main()
