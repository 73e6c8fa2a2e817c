"""Ansible module: read the keys of Ceph users."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_client_keys
short_description: Read the keys of users of a Ceph cluster
description:
  - Runs on a host of the cluster and reads the keys in one connection. The result is secret; call it with C(no_log).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only. Users and a cluster that do not exist yet have no key.
options:
  fsid:
    type: str
    required: true
    description: UUID of the cluster.
  names:
    type: list
    elements: str
    required: true
    description: Names of the users, without C(client.).
"""

EXAMPLES = r"""
- name: Read the key of a user
  slipway.platform.ceph_client_keys:
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
    names: [csi-rbd-prod]
  no_log: true
"""

RETURN = r"""
client_keys:
  description: Key of each user that exists, by name. Secret.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster, NotBootstrapped


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    fsid, names = module.params["fsid"], module.params["names"]
    try:
        users = {
            user["entity"]: user["key"] for user in Cluster(module.run_command, fsid).json(["auth", "ls"])["auth_dump"]
        }
    except NotBootstrapped as error:
        if not module.check_mode:
            module.fail_json(msg=f"Cluster {fsid}: {error}. Build it with playbooks/ceph.yml.")
        users = {}
    except CephError as error:
        module.fail_json(msg=f"Cluster {fsid}: {error}. Correct the cause and run again.")
    missing = [name for name in names if f"client.{name}" not in users]
    if missing and not module.check_mode:
        module.fail_json(
            msg=f"Cluster {fsid}: has no user {', '.join(missing)}. Declare it in ceph_clients, run playbooks/ceph.yml."
        )
    found = {name: users[f"client.{name}"] for name in names if name not in missing}
    module.exit_json(changed=False, client_keys=found)


if __name__ == "__main__":
    main()
