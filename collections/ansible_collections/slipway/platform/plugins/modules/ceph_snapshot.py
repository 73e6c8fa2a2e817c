"""Ansible module: a verified backup of a monitor store, with keys and options."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_snapshot
short_description: Back up a monitor store and verify the backup
description:
  - Stops the monitor of this host for the seconds of the backup, since a store in use cannot be copied, and
    only if the other monitors keep the quorum. A cluster with a single monitor has no quorum meanwhile; connected
    clients continue.
  - Beside the store the backup contains the keys, the key-value store with the keys of encrypted disks, options and
    maps.
  - Reads the backup, compares each file with its digest and opens the store with ceph-kvstore-tool.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports a change without making a backup.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  monitor:
    type: str
    required: true
    description: Name of the monitor on this host.
  dir:
    type: path
    required: true
    description: Directory of the backups, created with mode 0700.
  name:
    type: str
    required: true
    description: Prefix of the backup's name; the monitor and the time are appended.
  keep:
    type: int
    default: 5
    description: Number of backups with that prefix to retain on this host.
  timeout_seconds:
    type: int
    default: 120
    description: Timeout in seconds for the monitor to rejoin the quorum.
"""

EXAMPLES = r"""
- name: Back up the monitor store
  slipway.platform.ceph_snapshot:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    monitor: prod-ceph-2
    dir: /var/backups/ceph
    name: before-upgrade
"""

RETURN = r"""
snapshot:
  description: Path, size, digest and Ceph versions of the backup, and the downtime of the monitor in seconds.
  returned: when a backup was made
  type: dict
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_backup import BackupError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_snapshot import MonitorSnapshot


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "monitor": {"type": "str", "required": True},
            "dir": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 5},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    given = module.params
    snapshot = MonitorSnapshot(
        module.run_command,
        fsid=given["fsid"],
        monitor=given["monitor"],
        folder=given["dir"],
        name=given["name"],
        keep=given["keep"],
        timeout_seconds=given["timeout_seconds"],
    )
    try:
        module.exit_json(changed=True, snapshot=snapshot.create())
    except (BackupError, CephError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(
            msg=f"Backup of a monitor of cluster {module.params['fsid']}: {error}. Correct the cause and run again."
        )


if __name__ == "__main__":
    main()
