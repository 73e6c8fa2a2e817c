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
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_hosts
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 2.0
STATISTICS_SECONDS = 7
"""Maximum age of the managers' placement group statistics."""
DOWN_SECONDS = 60


def decide(module: AnsibleModule, cluster: Cluster, osd: int) -> tuple[dict[str, Any], str, str]:
    """Wait for a decision; fail when the OSD must not be destroyed."""
    reading = module.params["state"] == "read"

    def read() -> tuple[dict[str, Any], str, str]:
        view = ceph_hosts.read_osd(cluster, osd)
        return view, *ceph_hosts.plan_destroy(view, osd)

    def undecided(decision: tuple[dict[str, Any], str, str]) -> list[str]:
        view, action, reason = decision
        if action == "refuse":
            fail(module, osd, reason, view)
        return [reason] if action == "wait" and not reading else []

    def wait() -> tuple[dict[str, Any], str, str]:
        return wait_until(
            f"osd.{osd}: not destroyed",
            read,
            undecided,
            timeout_seconds=module.params["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )

    try:
        decision = wait()
        if decision[1] == "destroy" and not (module.check_mode or reading):
            # The statistics may predate the failure of an OSD: decide again on newer ones.
            time.sleep(STATISTICS_SECONDS)
            decision = wait()
    except NotMet as error:
        if error.value is None:
            raise
        fail(module, osd, f"{'; '.join(error.conditions)} after {error.waited_seconds:.0f} s", error.value[0])
    return decision


def fail(module: AnsibleModule, osd: int, reason: str, view: dict[str, Any]) -> NoReturn:
    detail = ceph_health.detail(view["health"])
    module.fail_json(msg=f"osd.{osd}: not destroyed, {reason}. Nothing was changed.\n{detail}")
    raise SystemExit(1)


def destroy(cluster: Cluster, osd: int) -> None:
    try:
        cluster.run(["orch", "daemon", "rm", f"osd.{osd}", "--force"])
    except CephError as error:
        if error.code != errno.EINVAL:  # already removed by an earlier run
            raise

    def still_up(osds: dict[str, Any]) -> list[str]:
        if not osds[str(osd)]["up"]:
            return []
        cluster.run(["osd", "down", str(osd)])
        return ["still up"]

    wait_until(
        f"osd.{osd} after its daemon was removed",
        lambda: ceph_health.read(cluster, [])["osds"],
        still_up,
        timeout_seconds=DOWN_SECONDS,
        interval_seconds=POLL_SECONDS,
        passing=CephError,
    )
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
    except NotMet as error:
        module.fail_json(msg=f"{error}. Correct the cause and run again.")
    except CephError as error:
        module.fail_json(msg=f"osd.{osd}: destroy failed: {error}. Correct the cause and run again.")
    module.exit_json(changed=changed, host=view["host"], reason=reason, destroyed=action == "none")


if __name__ == "__main__":
    main()
