"""Ansible module: wait until a Ceph cluster is well enough for the next step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_health
short_description: The gate before and after everything that disturbs a Ceph cluster
description:
  - Looks from one host at the running cluster until nothing is unmet, with a deadline of its own.
  - The quorum is exactly the wanted monitors, a manager is active and another stands by, no health check is an error,
    no warning stands that was neither muted nor accepted, every placement group is active and clean, every OSD that is
    in is up, none is nearly full, and the daemons named may be stopped.
  - Fails with a sentence that names what is unmet, and what ceph health detail says.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: It only reads, and waits in check mode too.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  monitors:
    type: list
    elements: str
    default: []
    description: Hosts whose monitors have to be in the quorum; any quorum will do when empty.
  managers:
    type: int
    default: 2
    description: Managers that have to run, one active, the others standing by.
  accepted_warnings:
    type: list
    elements: str
    default: []
    description: Codes of warnings that are no reason to stop, like AUTH_INSECURE_CLIENT_KEY_TYPE.
  nearfull_ratio:
    type: float
    default: 0.85
    description: Share of an OSD's device from which on it is too full.
  clean:
    type: bool
    default: true
    description:
      - Whether the cluster has to be whole. Otherwise it is enough that it serves, with a host or a disk away, every
        placement group is active and nothing is an error.
  stoppable:
    type: list
    elements: str
    default: []
    description: Daemons that Ceph has to allow to be stopped now, like osd.1, mon.prod-ceph-1 or mds.x.
  timeout_seconds:
    type: int
    required: true
    description: Seconds until it gives up.
"""

EXAMPLES = r"""
- name: Look whether the third host may go
  slipway.platform.ceph_health:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    monitors: [prod-ceph-1, prod-ceph-2, prod-ceph-3]
    stoppable: [osd.2, mon.prod-ceph-3]
    timeout_seconds: 300
"""

RETURN = r"""
waited_seconds:
  description: How long it took.
  returned: always
  type: float
unmet:
  description: What was still unmet at the end.
  returned: always
  type: list
health:
  description: Status, checks, quorum, managers, OSDs and placement groups as they were seen last.
  returned: when the cluster answered
  type: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_health import detail, read, unmet

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
    began = time.monotonic()
    while True:
        view = None
        try:
            view = read(cluster, given["stoppable"])
            left = unmet(
                view,
                monitors=given["monitors"],
                managers=given["managers"],
                accepted=given["accepted_warnings"],
                nearfull=given["nearfull_ratio"],
                clean=given["clean"],
            )
        except CephError as error:
            left = [str(error)]
        waited = round(time.monotonic() - began, 1)
        if not left:
            module.exit_json(changed=False, waited_seconds=waited, unmet=[], health=view)
        if waited + POLL_SECONDS > given["timeout_seconds"]:
            break
        time.sleep(POLL_SECONDS)
    extra: dict[str, Any] = {"health": view} if view else {}
    module.fail_json(
        msg=(
            f"The Ceph cluster {given['fsid']} is not well after {waited:.0f} s: {'; '.join(left)}. "
            f"Put that right, or wait for it, and run again: the run goes on where it stopped."
            + (f"\n{detail(view)}" if view else "")
        ),
        waited_seconds=waited,
        unmet=left,
        **extra,
    )


if __name__ == "__main__":
    main()
