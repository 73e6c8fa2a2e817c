"""Ansible module: give up an OSD and keep its place for the one that follows."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_osd_retire
short_description: Give up an OSD whose disk is to be replaced
description:
  - Waits until all that it holds is elsewhere, or every other copy is there and settled, then removes its daemon and
    marks it destroyed. Its number and its place in the CRUSH map stay for its successor.
  - Never waits for data to move when there is no host left that it could move to.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Judges and says what it would do.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  osd_id:
    type: int
    required: true
    description: Number of the OSD.
  state:
    type: str
    choices: [found, retired]
    required: true
    description: V(found) only says where it lives and whether it was given up before.
  timeout_seconds:
    type: int
    default: 600
    description: Seconds until it gives up waiting for the other copies.
"""

EXAMPLES = r"""
- name: Give up the OSD
  slipway.platform.ceph_osd_retire:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    osd_id: 2
    state: retired
"""

RETURN = r"""
host:
  description: The host whose OSD it is.
  returned: always
  type: str
reason:
  description: Why it could be given up, or why it cannot be yet.
  returned: always
  type: str
retired:
  description: Whether it was given up before this.
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
"""What the managers say of placement groups may be as old as this."""
DOWN_SECONDS = 60


def decide(module: AnsibleModule, cluster: Cluster, osd: int) -> tuple[dict[str, Any], str, str]:
    """Look until it is clear what is to be done; fail when it must not be done."""
    deadline = time.monotonic() + module.params["timeout_seconds"]
    sure = module.check_mode or module.params["state"] == "found"
    while True:
        try:
            view = ceph_hosts.read_osd(cluster, osd)
        except CephError:
            # While monitors elect, nobody answers for a moment.
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
            continue
        action, reason = ceph_hosts.retirement(view, osd)
        if action == "destroy" and not sure:
            # An OSD that has just gone down is still counted as it was: look at the next numbers too.
            sure = True
            time.sleep(STATISTICS_SECONDS)
            continue
        if action in ("none", "destroy") or (action == "wait" and module.params["state"] == "found"):
            return view, action, reason
        if action == "refuse" or time.monotonic() > deadline:
            detail = ceph_health.detail(view["health"])
            module.fail_json(msg=f"osd.{osd} is not given up, nothing was changed: {reason}.\n{detail}")
        time.sleep(POLL_SECONDS)


def retire(cluster: Cluster, osd: int) -> None:
    try:
        cluster.run(["orch", "daemon", "rm", f"osd.{osd}", "--force"])
    except CephError as error:
        if error.code != errno.EINVAL:  # a run of before has removed it
            raise
    deadline = time.monotonic() + DOWN_SECONDS
    while ceph_health.read(cluster, [])["osds"][str(osd)]["up"]:
        if time.monotonic() > deadline:
            raise CephError(errno.ETIMEDOUT, f"osd.{osd} runs on although its daemon was removed")
        cluster.run(["osd", "down", str(osd)])
        time.sleep(POLL_SECONDS)
    # Forced, since Ceph's own question is whether no placement group is mapped to it; ours was asked before.
    cluster.run(["osd", "destroy", str(osd), "--force", "--yes-i-really-mean-it"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "osd_id": {"type": "int", "required": True},
            "state": {"type": "str", "required": True, "choices": ["found", "retired"]},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    osd = module.params["osd_id"]
    cluster = Cluster(module.run_command, module.params["fsid"])
    try:
        view, action, reason = decide(module, cluster, osd)
        changed = action == "destroy" and module.params["state"] == "retired"
        if changed and not module.check_mode:
            retire(cluster, osd)
    except CephError as error:
        module.fail_json(msg=f"osd.{osd} could not be given up: {error}")
    module.exit_json(changed=changed, host=view["host"], reason=reason, retired=action == "none")


if __name__ == "__main__":
    main()
