"""Ansible module: set a flag of the OSD map for the duration of an operation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_flag
short_description: Set or unset noout, noautoscale or another flag of the whole cluster
description:
  - Unsets only flags that it has set. A config-key of the cluster marks them, so that the run after an interrupted one
    unsets them, and flags that a person set stay.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports whether it would change something.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  name:
    type: str
    required: true
    choices: [noout, norebalance, noautoscale]
    description: The flag.
  state:
    type: str
    choices: [set, unset]
    required: true
    description: V(unset) does not change a flag that was not set by V(set).
"""

EXAMPLES = r"""
- name: Set noout
  slipway.platform.ceph_flag:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    name: noout
    state: set
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_flags import plan, read


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "name": {"type": "str", "required": True, "choices": ["noout", "norebalance", "noautoscale"]},
            "state": {"type": "str", "required": True, "choices": ["set", "unset"]},
        },
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    cluster = Cluster(module.run_command, module.params["fsid"])
    try:
        commands = plan(read(cluster, name), name, state)
        if not module.check_mode:
            for command in commands:
                cluster.run(command)
    except CephError as error:
        module.fail_json(msg=f"Flag {name}: {state} failed: {error}")
    module.exit_json(changed=bool(commands))


if __name__ == "__main__":
    main()
