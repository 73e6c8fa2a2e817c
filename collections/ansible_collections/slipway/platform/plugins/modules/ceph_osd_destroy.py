"""Ansible module: destroy an OSD and reserve its id and CRUSH location for its replacement."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_osd_destroy
short_description: Destroy an OSD whose disk is to be replaced
description:
  - Waits until the OSD is safe to destroy, or until every other copy of its data is available without recovery, then
    removes its daemon and marks it destroyed. Its id and its CRUSH location stay reserved for its replacement.
  - Does not wait for data to move when no other host can take the data.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Checks the preconditions and reports the change.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  osd_id:
    type: int
    required: true
    description: Id of the OSD.
  state:
    type: str
    choices: [read, destroyed]
    required: true
    description: V(read) only returns its host, and whether it is destroyed.
  timeout_seconds:
    type: int
    default: 600
    description: Timeout in seconds for the other copies.
"""

EXAMPLES = r"""
- name: Destroy the OSD
  slipway.platform.ceph_osd_destroy:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    osd_id: 2
    state: destroyed
"""

RETURN = r"""
host:
  description: Host of the OSD.
  returned: always
  type: str
reason:
  description: Why it can be destroyed, or why not yet.
  returned: always
  type: str
destroyed:
  description: Whether it was already destroyed.
  returned: always
  type: bool
"""

import errno
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_hosts
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster

POLL_SECONDS = 2.0
STATISTICS_SECONDS = 7
"""Maximum age of the managers' placement group statistics."""
DOWN_SECONDS = 60


def decide(module: AnsibleModule, cluster: Cluster, osd: int) -> tuple[dict[str, Any], str, str]:
    """Wait for a decision; fail when the OSD must not be destroyed."""
    deadline = time.monotonic() + module.params["timeout_seconds"]
    confirmed = module.check_mode or module.params["state"] == "read"
    while True:
        try:
            view = ceph_hosts.read_osd(cluster, osd)
        except CephError:
            # During an election of the monitors, commands fail.
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
            continue
        action, reason = ceph_hosts.plan_destroy(view, osd)
        if action == "destroy" and not confirmed:
            # The statistics may predate the failure of an OSD: decide again on newer ones.
            confirmed = True
            time.sleep(STATISTICS_SECONDS)
            continue
        if action in ("none", "destroy") or (action == "wait" and module.params["state"] == "read"):
            return view, action, reason
        if action == "refuse" or time.monotonic() > deadline:
            detail = ceph_health.detail(view["health"])
            module.fail_json(msg=f"osd.{osd}: not destroyed, {reason}. Nothing was changed.\n{detail}")
        time.sleep(POLL_SECONDS)


def destroy(cluster: Cluster, osd: int) -> None:
    try:
        cluster.run(["orch", "daemon", "rm", f"osd.{osd}", "--force"])
    except CephError as error:
        if error.code != errno.EINVAL:  # already removed by an earlier run
            raise
    deadline = time.monotonic() + DOWN_SECONDS
    while ceph_health.read(cluster, [])["osds"][str(osd)]["up"]:
        if time.monotonic() > deadline:
            raise CephError(errno.ETIMEDOUT, f"osd.{osd} is still up after its daemon was removed")
        cluster.run(["osd", "down", str(osd)])
        time.sleep(POLL_SECONDS)
    # --force skips Ceph's own check that no placement group maps to the OSD; plan_destroy has decided before.
    cluster.run(["osd", "destroy", str(osd), "--force", "--yes-i-really-mean-it"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "osd_id": {"type": "int", "required": True},
            "state": {"type": "str", "required": True, "choices": ["read", "destroyed"]},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    osd = module.params["osd_id"]
    cluster = Cluster(module.run_command, module.params["fsid"])
    try:
        view, action, reason = decide(module, cluster, osd)
        changed = action == "destroy" and module.params["state"] == "destroyed"
        if changed and not module.check_mode:
            destroy(cluster, osd)
    except CephError as error:
        module.fail_json(msg=f"osd.{osd}: destroy failed: {error}. Correct the cause and run again.")
    module.exit_json(changed=changed, host=view["host"], reason=reason, destroyed=action == "none")


if __name__ == "__main__":
    main()
