"""Ansible module: read a Ceph cluster, bring its members in line, wait until they are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_cluster
short_description: Keep hosts, monitors, managers, options and key types of a Ceph cluster in line
description:
  - Runs on a host whose monitor is in the quorum. Reads the cluster, compares, and does what is missing.
  - Nothing is removed. What is there and not declared is returned as C(unclaimed).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: full
    description: One line a step.
options:
  scope:
    description:
      - V(view) reads.
      - V(access) sees to it that the managers have an account and a key for reaching the hosts.
      - V(members) does the rest.
      - V(prove) waits until everything is as declared and well, and fails when it is not in time. It only reads, so
        it waits in check mode too. Data on its way to another disk is nothing to wait for while all copies are there.
    type: str
    choices: [view, access, members, prove]
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
  seen:
    description: The view of a moment ago. Where it needs nothing, the cluster is not asked again.
    type: dict
  present:
    description: Hosts that were seen to have a monitor, so that one which is about to join is not added again.
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
    description: Modules of the managers that have to be on.
    type: list
    elements: str
    default: []
  ciphers:
    description: Types of keys that the monitors have to accept.
    type: list
    elements: str
    default: [aes, aes256k]
  muted:
    description: Health warnings that are expected for good.
    type: list
    elements: str
    default: []
  version:
    description: Release that every daemon has to run; with O(scope=prove).
    type: str
  timeout_seconds:
    description: Seconds that a command may take, and that V(prove) waits.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Read the cluster
  slipway.platform.ceph_cluster:
    scope: view
    fsid: fe94d781-67a9-44c0-bef8-f96df8775826
  register: seen
"""

RETURN = r"""
view:
  description: What the cluster says of itself; see module_utils/ceph_view.py.
  returned: success
  type: dict
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
unclaimed:
  description: What is there and not declared, as sentences.
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
    believed_monitors,
    member_steps,
    option_steps,
    unclaimed,
    unmet,
)
from ansible_collections.slipway.platform.plugins.module_utils.ceph_view import look

POLL_SECONDS = 1.0
RELOOK_SECONDS = 15.0
UNREAD = "CEPHADM_REFRESH_FAILED"


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "required": True, "choices": ["view", "access", "members", "prove"]},
            "fsid": {"type": "str", "required": True},
            "hosts": {"type": "dict", "default": {}},
            "monitors": names,
            "seen": {"type": "dict"},
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
        required_if=[("scope", "access", ["ssh_user"]), ("scope", "prove", ["version"])],
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
        if given["scope"] == "view":
            seen = until(module, lambda: look(cluster), lambda view: [], given["timeout_seconds"])
            module.exit_json(changed=False, view=seen, steps=[])
        if given["scope"] == "prove":
            prove(module, cluster, wanted)
        change(module, cluster, wanted)
    except CephError as error:
        module.fail_json(msg=f"The cluster {given['fsid']} refused: {error}. Correct it and run again.")


def answering(module: AnsibleModule, cluster: Cluster) -> dict[str, Any]:
    """The view, once a manager answers: it restarts when a module is switched on, and when its host went away."""
    return until(
        module,
        lambda: look(cluster),
        lambda view: [] if view["orchestrated"] else ["no manager answers"],
        module.params["timeout_seconds"],
    )


def until(
    module: AnsibleModule,
    read: Callable[[], dict[str, Any]],
    judge: Callable[[dict[str, Any]], Sequence[str]],
    seconds: float,
) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        try:
            view = read()
            left = list(judge(view))
        except CephError as error:
            view, left = {}, [str(error)]
        waited = time.monotonic() - began
        if not left:
            return view
        if waited > seconds:
            module.fail_json(
                msg=(
                    f"After {waited:.0f} s: {'; '.join(left)}. The cluster says {view.get('health') or 'nothing'}. "
                    "Look at `cephadm shell -- ceph health detail` and `cephadm shell -- ceph log last 50 cephadm` on "
                    "a member, and run again: the run goes on where it stopped."
                ),
                view=view,
                unmet=left,
            )
        time.sleep(POLL_SECONDS)


def all_member_steps(view: dict[str, Any], wanted: Wanted) -> list[Step]:
    return option_steps(view, wanted) + member_steps(view, wanted)


def change(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> None:
    plan = access_steps if module.params["scope"] == "access" else all_member_steps
    view = module.params["seen"]
    steps = plan(view, wanted) if view and view["orchestrated"] else None
    if steps is None or steps:
        view = answering(module, cluster)
        steps = plan(view, wanted)
    if steps and not module.check_mode:
        for step in steps:
            apply(module, cluster, step)
        view = answering(module, cluster)
        if module.params["scope"] == "members" and believed_monitors(view, wanted):
            more = plan(unbelieving(module, cluster, wanted), wanted)
            for step in more:
                apply(module, cluster, step)
            steps += more
            view = answering(module, cluster)
    said = [step.sentence for step in steps]
    module.exit_json(
        changed=bool(steps),
        view=view,
        steps=said,
        unclaimed=unclaimed(view, wanted) if module.params["scope"] == "members" else [],
        diff={"before": "", "after": "".join(f"{sentence}\n" for sentence in said)},
    )


def unbelieving(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> dict[str, Any]:
    """The view, once the orchestrator has seen which monitors are no more."""
    return until(
        module,
        lambda: look(cluster),
        lambda view: [f"the orchestrator still lists mon.{name}" for name in believed_monitors(view, wanted)],
        module.params["timeout_seconds"],
    )


def apply(module: AnsibleModule, cluster: Cluster, step: Step) -> None:
    """A manager that restarts meanwhile (a module was switched on) is asked once more when it is back."""
    try:
        cluster.run(list(step.command), input=step.input)
    except CephError:
        if step.command[0] not in ("orch", "cephadm"):
            raise
        answering(module, cluster)
        cluster.run(list(step.command), input=step.input)


def prove(module: AnsibleModule, cluster: Cluster, wanted: Wanted) -> None:
    looked_again = time.monotonic()

    def read() -> dict[str, Any]:
        """The view. A host that could not be asked once is only asked again when its turn comes, in half an hour."""
        nonlocal looked_again
        view = look(cluster)
        if UNREAD in view["warnings"] and not module.check_mode and time.monotonic() - looked_again > RELOOK_SECONDS:
            looked_again = time.monotonic()
            cluster.run(["orch", "ps", "--refresh"])
            cluster.run(["orch", "device", "ls", "--refresh"])
        return view

    view = until(
        module,
        read,
        lambda seen: unmet(seen, wanted, module.params["version"]),
        module.params["timeout_seconds"],
    )
    module.exit_json(changed=False, view=view, steps=[])


if __name__ == "__main__":
    main()
