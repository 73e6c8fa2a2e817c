"""Ansible module: create missing OSDs, and wait until all wanted ones are up and in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_osds
short_description: Create an OSD on each empty disk
description:
  - Runs on a host whose monitor is in the quorum. One service for each host lists its disks by path; once the OSDs are
    up, the service is set to unmanaged, so that no disk ever becomes an OSD without a verdict of ceph_disk.
  - OSDs that are down without a daemon get one. Nothing is removed except the entry of a destroyed OSD, when its
    replacement is created.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the steps without running them.
  diff_mode:
    support: full
    description: One line for each step.
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
    description: Whether BlueStore uses a logical volume or the whole disk.
  encrypted:
    type: bool
    default: false
    description: Whether OSDs are encrypted by LUKS.
  timeout_seconds:
    type: int
    default: 600
    description: Timeout in seconds for all OSDs to be up and in.
"""

EXAMPLES = r"""
- name: Create the OSDs
  slipway.platform.ceph_osds:
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
    hosts:
      prod-ceph-1: "{{ classified.disks }}"
"""

RETURN = r"""
steps:
  description: Steps that were run, or would be.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_osd_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster, orchestrator_log
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_read import read_osds
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 2.0


def wait(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> dict[str, Any]:
    try:
        return wait_until(
            "OSDs",
            lambda: read_osds(cluster),
            lambda view: plan.unmet(view, wanted),
            timeout_seconds=module.params["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        log = orchestrator_log(cluster)
        module.fail_json(msg=f"{error}. Correct the cause and run again. Log of the orchestrator:\n{log}")


def reconcile(module: AnsibleModule, cluster: Cluster, wanted: plan.Wanted) -> None:
    view = read_osds(cluster)
    faults = plan.faults(view, wanted)
    if faults:
        module.fail_json(msg="\n".join(faults))
    steps = plan.creation_steps(view, wanted)
    if not module.check_mode:
        for step in steps:
            cluster.run(list(step.command), input=step.input)
        if steps or plan.unmet(view, wanted):
            view = wait(module, cluster, wanted)
    after = plan.unmanage_steps(view, wanted)
    if not module.check_mode:
        for step in after:
            cluster.run(list(step.command), input=step.input)
    summaries = [step.summary for step in [*steps, *after]]
    module.exit_json(
        changed=bool(summaries),
        steps=summaries,
        diff={"before": "", "after": "".join(f"{summary}\n" for summary in summaries)},
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
        reconcile(module, cluster, plan.Wanted(given["hosts"], given["method"], given["encrypted"]))
    except CephError as error:
        module.fail_json(msg=f"Cluster {given['fsid']}: {error}. Correct the cause and run again.")


if __name__ == "__main__":
    main()
