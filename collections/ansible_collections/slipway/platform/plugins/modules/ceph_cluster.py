"""Ansible module: read a Ceph cluster, reconcile its members, or verify them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_cluster
short_description: Reconcile hosts, monitors, managers, options and key types of a Ceph cluster
description:
  - Runs on a host whose monitor is in the quorum. Reads the cluster and runs the commands that are missing.
  - Removes nothing. Undeclared objects are returned as C(undeclared).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the steps without running them.
  diff_mode:
    support: full
    description: One line for each step.
options:
  scope:
    description:
      - V(read) only reads the status.
      - V(access) sets the account and generates the key by which the managers reach the hosts.
      - V(members) reconciles everything else.
      - V(verify) waits until the cluster is as declared and healthy, and fails after the timeout. It is read-only, so
        it waits in check mode too. Rebalancing is no fault while all copies exist.
    type: str
    choices: [read, access, members, verify]
    required: true
  fsid:
    description: The cluster's UUID.
    type: str
    required: true
  hosts:
    description: Address of every host by its name.
    type: dict
    default: {}
  monitors:
    description: Hosts with a monitor.
    type: list
    elements: str
    default: []
  status:
    description: The status from O(scope=read). While it needs no step, the cluster is not read again.
    type: dict
  present:
    description: Hosts with a monitor daemon, so that a monitor that is about to join is not added again.
    type: list
    elements: str
    default: []
  managers:
    description: Hosts with a manager.
    type: list
    elements: str
    default: []
  ssh_user:
    description: Account through which the managers reach the hosts.
    type: str
  config:
    description: Options by section and name.
    type: dict
    default: {}
  modules:
    description: Manager modules to enable.
    type: list
    elements: str
    default: []
  ciphers:
    description: Key types that the monitors must allow.
    type: list
    elements: str
    default: [aes, aes256k]
  muted:
    description: Health warnings to mute permanently.
    type: list
    elements: str
    default: []
  version:
    description: Release that every daemon must run; with O(scope=verify).
    type: str
  timeout_seconds:
    description: Timeout in seconds of a command, and of V(verify).
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Read the cluster
  slipway.platform.ceph_cluster:
    scope: read
    fsid: fe94d781-67a9-44c0-bef8-f96df8775826
  register: cluster
"""

RETURN = r"""
status:
  description: Status of the cluster; see module_utils/ceph_status.py.
  returned: success
  type: dict
steps:
  description: Steps that were run, or would be.
  returned: success
  type: list
  elements: str
undeclared:
  description: Undeclared objects, one message each.
  returned: with O(scope=members)
  type: list
  elements: str
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_members import (
    Step,
    Wanted,
    access_steps,
    member_steps,
    option_steps,
    stale_monitors,
    undeclared,
    unmet,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph_status import read_status
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0
REFRESH_SECONDS = 15.0
UNTIL_REFRESH = {"CEPHADM_REFRESH_FAILED", "CEPHADM_STRAY_DAEMON", "CEPHADM_STRAY_HOST"}
"""Warnings that last until cephadm reads the hosts again: a daemon that it deploys is stray until then."""


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "required": True, "choices": ["read", "access", "members", "verify"]},
            "fsid": {"type": "str", "required": True},
            "hosts": {"type": "dict", "default": {}},
            "monitors": names,
            "status": {"type": "dict"},
            "present": names,
            "managers": names,
            "ssh_user": {"type": "str"},
            "config": {"type": "dict", "default": {}},
            "modules": names,
            "ciphers": names | {"default": ["aes", "aes256k"]},
            "muted": names,
            "version": {"type": "str"},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        required_if=[("scope", "access", ["ssh_user"]), ("scope", "verify", ["version"])],
        supports_check_mode=True,
    )
    given = module.params
    wanted = Wanted(
        hosts=given["hosts"],
        monitors=given["monitors"],
        present=given["present"],
        managers=given["managers"],
        ssh_user=given["ssh_user"] or "",
        config=given["config"],
        modules=given["modules"],
        ciphers=given["ciphers"],
        muted=given["muted"],
    )
    cluster = Cluster(module.run_command, given["fsid"], timeout_seconds=given["timeout_seconds"])
    try:
        if given["scope"] == "read":
            status = wait(module, lambda: read_status(cluster), lambda status: [])
            module.exit_json(changed=False, status=status, steps=[])
        if given["scope"] == "verify":
            verify(module, cluster, wanted)
        reconcile(module, cluster, wanted)
    except CephError as error:
        module.fail_json(msg=f"Cluster {given['fsid']}: {error}. Correct the cause and run again.")


def wait_for_manager(module: AnsibleModule, cluster: Cluster) -> dict[str, Any]:
    """The status once a manager answers: it restarts when a module is enabled, and fails over when its host is down."""
    return wait(
        module, lambda: read_status(cluster), lambda status: [] if status["orchestrated"] else ["no manager answers"]
    )


def wait(
    module: AnsibleModule,
    read: Callable[[], dict[str, Any]],
    unmet_conditions: Callable[[dict[str, Any]], Sequence[str]],
) -> dict[str, Any]:
    try:
        return wait_until(
            f"Cluster {module.params['fsid']}",
            read,
            unmet_conditions,
            timeout_seconds=module.params["timeout_seconds"],
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )
    except NotMet as error:
        status = error.value or {}
        module.fail_json(
            msg=(
                f"{error} (health: {status.get('health') or 'unknown'}). "
                "Read `cephadm shell -- ceph health detail` and `cephadm shell -- ceph log last 50 cephadm` on "
                "a member, and run again: the run continues from the current state."
            ),
            status=status,
            unmet=error.conditions,
        )


def all_member_steps(view: dict[str, Any], wanted: Wanted) -> list[Step]:
    return option_steps(view, wanted) + member_steps(view, wanted)


def reconcile(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> None:
    plan = access_steps if module.params["scope"] == "access" else all_member_steps
    status = module.params["status"]
    steps = plan(status, wanted) if status and status["orchestrated"] else None
    if steps is None or steps:
        status = wait_for_manager(module, cluster)
        steps = plan(status, wanted)
    if steps and not module.check_mode:
        for step in steps:
            apply(module, cluster, step)
        status = wait_for_manager(module, cluster)
        if module.params["scope"] == "members" and stale_monitors(status, wanted):
            more = plan(wait_for_refresh(module, cluster, wanted), wanted)
            for step in more:
                apply(module, cluster, step)
            steps += more
            status = wait_for_manager(module, cluster)
    summaries = [step.summary for step in steps]
    module.exit_json(
        changed=bool(steps),
        status=status,
        steps=summaries,
        undeclared=undeclared(status, wanted) if module.params["scope"] == "members" else [],
        diff={"before": "", "after": "".join(f"{summary}\n" for summary in summaries)},
    )


def wait_for_refresh(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> dict[str, Any]:
    """The status once the orchestrator no longer lists stale monitors."""
    return wait(
        module,
        lambda: read_status(cluster),
        lambda status: [f"the orchestrator still lists mon.{name}" for name in stale_monitors(status, wanted)],
    )


def apply(module: AnsibleModule, cluster: Cluster, step: Step) -> None:
    """Run one step. A manager command is repeated once after a failover or restart of the manager."""
    try:
        cluster.run(list(step.command), input=step.input)
    except CephError:
        if step.command[0] not in ("orch", "cephadm"):
            raise
        wait_for_manager(module, cluster)
        cluster.run(list(step.command), input=step.input)


def verify(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> None:
    refreshed_at = -REFRESH_SECONDS

    def read() -> dict[str, Any]:
        """The status. A refresh is requested now; cephadm's own interval is a minute, after a failure half an hour."""
        nonlocal refreshed_at
        status = read_status(cluster)
        if (
            UNTIL_REFRESH & set(status["warnings"])
            and not module.check_mode
            and time.monotonic() - refreshed_at > REFRESH_SECONDS
        ):
            refreshed_at = time.monotonic()
            cluster.run(["orch", "ps", "--refresh"])
            cluster.run(["orch", "device", "ls", "--refresh"])
        return status

    status = wait(module, read, lambda current: unmet(current, wanted, module.params["version"]))
    module.exit_json(changed=False, status=status, steps=[])


if __name__ == "__main__":
    main()
