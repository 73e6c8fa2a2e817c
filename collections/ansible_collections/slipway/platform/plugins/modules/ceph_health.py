"""Ansible module: wait until a Ceph cluster is healthy enough for the next step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_health
short_description: Health gate before and after disruptive operations on a Ceph cluster
description:
  - Reads the cluster from one host until all requirements are met, or until the timeout.
  - The quorum is exactly the given monitors, one manager is active and another is standby, no health check is an error,
    every warning is muted or accepted, every placement group is active and clean, every OSD that is in is up, none is
    nearly full, and the given daemons are ok-to-stop.
  - Fails with the unmet requirements and the output of ceph health detail.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Read-only, waits in check mode too.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  monitors:
    type: list
    elements: str
    default: []
    description: Hosts whose monitors must be in the quorum; empty accepts any quorum.
  managers:
    type: int
    default: 2
    description: Managers that must run, one active, the others standby.
  accepted_warnings:
    type: list
    elements: str
    default: []
    description: Codes of warnings that are ignored, like AUTH_INSECURE_CLIENT_KEY_TYPE.
  nearfull_ratio:
    type: float
    default: 0.85
    description: Used share of an OSD's device that counts as nearly full.
  clean:
    type: bool
    default: true
    description:
      - Whether all requirements apply. Otherwise active placement groups, an active manager and no health error are
        enough, as while a host or an OSD is down.
  stoppable:
    type: list
    elements: str
    default: []
    description: Daemons that must be ok-to-stop, like osd.1, mon.prod-ceph-1 or mds.x.
  timeout_seconds:
    type: int
    required: true
    description: Timeout in seconds.
"""

EXAMPLES = r"""
- name: Check that the daemons of the third host can be stopped
  slipway.platform.ceph_health:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    monitors: [prod-ceph-1, prod-ceph-2, prod-ceph-3]
    stoppable: [osd.2, mon.prod-ceph-3]
    timeout_seconds: 300
"""

RETURN = r"""
waited_seconds:
  description: Seconds waited.
  returned: always
  type: float
unmet:
  description: Requirements that were not met.
  returned: always
  type: list
health:
  description: Last status, checks, quorum, managers, OSDs and placement groups.
  returned: when the cluster answered
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_health import detail, read, unmet
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 2.0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "monitors": {"type": "list", "elements": "str", "default": []},
            "managers": {"type": "int", "default": 2},
            "accepted_warnings": {"type": "list", "elements": "str", "default": []},
            "nearfull_ratio": {"type": "float", "default": 0.85},
            "clean": {"type": "bool", "default": True},
            "stoppable": {"type": "list", "elements": "str", "default": []},
            "timeout_seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    cluster = Cluster(module.run_command, given["fsid"])
    started_at = time.monotonic()
    try:
        view = wait_until(
            f"Cluster {given['fsid']}: not healthy",
            lambda: read(cluster, given["stoppable"]),
            lambda current: unmet(
                current,
                monitors=given["monitors"],
                managers=given["managers"],
                accepted=given["accepted_warnings"],
                nearfull=given["nearfull_ratio"],
                clean=given["clean"],
            ),
            timeout_seconds=given["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        module.fail_json(
            msg=f"{error}. Correct the cause and run again: the run continues from the current state."
            + (f"\n{detail(error.value)}" if error.value else ""),
            waited_seconds=round(error.waited_seconds, 1),
            unmet=error.conditions,
            health=error.value,
        )
    except CephError as error:
        module.fail_json(msg=f"Cluster {given['fsid']}: {error}. Correct the cause and run again.", unmet=[str(error)])
    module.exit_json(changed=False, waited_seconds=round(time.monotonic() - started_at, 1), unmet=[], health=view)


if __name__ == "__main__":
    main()
