"""Ansible module: make the OSDs that are missing, and wait until all that are wanted are up and in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_osds
short_description: Make an OSD of each disk that was judged blank
description:
  - Runs on a host whose monitor is in the quorum. One service a host names its disks one by one; once the OSDs are up,
    cephadm is told to leave the service alone, so that no disk ever becomes an OSD without having been judged.
  - OSDs that are down for want of a daemon get one. Nothing is removed but the entry of an OSD that was destroyed,
    when its successor is made.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: full
    description: One line a step.
options:
  fsid:
    type: str
    required: true
    description: The cluster's UUID.
  hosts:
    type: dict
    default: {}
    description: The disks of each host as C(slipway.platform.ceph_disk) returns them.
  method:
    type: str
    choices: [lvm, raw]
    default: lvm
    description: Whether BlueStore lies on a logical volume or on the disk itself.
  encrypted:
    type: bool
    default: false
    description: Whether OSDs are made with LUKS.
  timeout_seconds:
    type: int
    default: 600
    description: Seconds until all OSDs have to be up and in.
"""

EXAMPLES = r"""
- name: Make the OSDs
  slipway.platform.ceph_osds:
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
    hosts:
      prod-ceph-1: "{{ judged.disks }}"
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_osd_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_read import look

POLL_SECONDS = 2.0


def wait(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        try:
            view = look(cluster)
            left = plan.unmet(view, wanted)
        except CephError as error:
            view, left = {}, [str(error)]
        waited = time.monotonic() - began
        if not left:
            return view
        if waited > module.params["timeout_seconds"]:
            module.fail_json(msg=f"After {waited:.0f} s: {'; '.join(left)}. The orchestrator says:\n{log(cluster)}")
        time.sleep(POLL_SECONDS)


def log(cluster: Cluster) -> str:
    try:
        return cluster.run(["log", "last", "15", "info", "cephadm"]).strip()
    except CephError as error:
        return str(error)


def make(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> None:
    view = look(cluster)
    found = plan.faults(view, wanted)
    if found:
        module.fail_json(msg="\n".join(found))
    steps = plan.creation(view, wanted)
    if not module.check_mode:
        for step in steps:
            cluster.run(list(step.command), input=step.input)
        if steps or plan.unmet(view, wanted):
            view = wait(module, cluster, wanted)
    after = plan.settling(view, wanted)
    if not module.check_mode:
        for step in after:
            cluster.run(list(step.command), input=step.input)
    said = [step.sentence for step in [*steps, *after]]
    module.exit_json(
        changed=bool(said),
        steps=said,
        diff={"before": "", "after": "".join(f"{sentence}\n" for sentence in said)},
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "hosts": {"type": "dict", "default": {}},
            "method": {"type": "str", "choices": ["lvm", "raw"], "default": "lvm"},
            "encrypted": {"type": "bool", "default": False},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    cluster = Cluster(module.run_command, given["fsid"])
    try:
        make(module, cluster, plan.Wanted(given["hosts"], given["method"], given["encrypted"]))
    except CephError as error:
        module.fail_json(msg=f"The cluster {given['fsid']} refused: {error}. Correct it and run again.")


if __name__ == "__main__":
    main()
