"""Ansible module: read the state of Ceph on one host, without the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_state
short_description: Read a host's programs, its Ceph daemons and the status of its own monitor
description:
  - Reads packages, the program C(cephadm), images, the folders of clusters below C(/var/lib/ceph) and the admin
    socket of the monitor on this host, and changes nothing.
  - Waits up to O(idle_seconds) while cephadm is running on this host, since what an interrupted run started continues.
  - With O(wait_seconds) it waits until this host's monitor is in the quorum.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
options:
  fsid:
    description: The cluster's UUID.
    type: str
    required: true
  name:
    description: This host's name in the cluster.
    type: str
    required: true
  packages:
    description: Required packages.
    type: list
    elements: str
    default: []
  image:
    description: Required container image.
    type: str
    required: true
  program:
    description: Path of cephadm.
    type: path
    required: true
  checksum:
    description: Checksum of cephadm, like C(sha256:…).
    type: str
    required: true
  account:
    description: Account through which the managers reach this host.
    type: str
    required: true
  idle_seconds:
    description: Timeout in seconds for a running cephadm.
    type: int
    default: 300
  wait_seconds:
    description: Timeout in seconds for the monitor of this host to join the quorum; 0 does not wait.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Read the host
  slipway.platform.ceph_state:
    fsid: fe94d781-67a9-44c0-bef8-f96df8775826
    name: prod-ceph-1
    image: quay.io/ceph/ceph@sha256:…
    program: /usr/local/sbin/cephadm
    checksum: sha256:…
    account: cephadm
  register: read
"""

RETURN = r"""
state:
  description: State of the host; see module_utils/ceph_host.py, read_host.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph_host import (
    read_host,
    wait_for_quorum,
    wait_until_idle,
)


def main() -> None:
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "fsid": text,
            "name": text,
            "packages": {"type": "list", "elements": "str", "default": []},
            "image": text,
            "program": {"type": "path", "required": True},
            "checksum": text,
            "account": text,
            "idle_seconds": {"type": "int", "default": 300},
            "wait_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    wait_until_idle(given["fsid"], given.pop("idle_seconds"))
    seconds = given.pop("wait_seconds")
    if seconds:
        wait_for_quorum(given["fsid"], given["name"], seconds)
    module.exit_json(changed=False, state=read_host(module.run_command, **given))


if __name__ == "__main__":
    main()
