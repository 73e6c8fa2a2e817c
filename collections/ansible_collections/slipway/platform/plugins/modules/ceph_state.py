"""Ansible module: read what a host knows of Ceph without asking the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_state
short_description: Read a host's programs, its daemons of Ceph and what its monitor says of itself
description:
  - Reads packages, the program C(cephadm), images, the folders of clusters below C(/var/lib/ceph) and the monitor's own
    door on this host, and changes nothing.
  - Waits up to O(idle_seconds) while cephadm is at work on this host: what a killed run began goes on without it.
  - With O(wait_seconds) it waits until this host's monitor is in the quorum. Not in check mode.
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
    description: Packages wanted.
    type: list
    elements: str
    default: []
  image:
    description: Container image wanted.
    type: str
    required: true
  program:
    description: Where cephadm lies.
    type: path
    required: true
  checksum:
    description: Its checksum, like C(sha256:…).
    type: str
    required: true
  account:
    description: Account through which the managers reach this host.
    type: str
    required: true
  idle_seconds:
    description: Seconds that cephadm gets to end what it does.
    type: int
    default: 300
  wait_seconds:
    description: Seconds in which the monitor of this host has to be in the quorum; 0 does not wait.
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
  description: What was read; see module_utils/ceph_host.py, read_host.
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
