"""Ansible module: forget what a lost host ran, or drain a host and take it out of the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_host
short_description: Take leave of a host of a Ceph cluster, for a while or for good
description:
  - V(lost) prepares the return of a host whose machine is gone. Its monitor leaves the monitors' map, so that a new one
    with that name can join. Its OSDs stay as they are, since their volumes may have outlived the machine. It refuses
    while anything of the host still runs.
  - V(awaited) notes in the cluster that the machine is on its way, so that a run that was killed is taken up when the
    host is back already; V(returned) takes the note away.
  - V(drained) moves all data and daemons off a host and then removes it, also from the CRUSH map. It refuses when the
    data has nowhere to go.
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
  name:
    type: str
    required: true
    description: The host.
  members:
    type: list
    elements: str
    default: []
    description: With V(drained), the hosts that stay.
  state:
    type: str
    choices: [lost, awaited, returned, drained]
    required: true
    description: What becomes of it.
  timeout_seconds:
    type: int
    default: 3600
    description: Seconds until it gives up waiting for data to move; what was begun goes on, run again to follow it.
"""

EXAMPLES = r"""
- name: Drain the fourth host
  slipway.platform.ceph_host:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    name: prod-ceph-4
    members: [prod-ceph-1, prod-ceph-2, prod-ceph-3]
    state: drained
"""

RETURN = r"""
awaited:
  description: Whether an earlier run has noted that the machine is on its way.
  returned: always
  type: bool
steps:
  description: What was done, or would be.
  returned: always
  type: list
  elements: str
"""

import errno
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_hosts
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster

POLL_SECONDS = 3.0


class Leave:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.name = module, module.params["name"]
        self.cluster = Cluster(module.run_command, module.params["fsid"])
        self.note = f"slipway/awaited/{self.name}"
        self.awaited_before = False
        self.steps: list[str] = []

    def refuse(self, faults: list[str], view: dict[str, Any]) -> NoReturn:
        self.module.fail_json(
            msg=f"{' '.join(faults)} Nothing was changed.\n{ceph_health.detail(view['health'])}", steps=self.steps
        )
        raise SystemExit(1)

    def do(self, sentence: str, *commands: list[str]) -> None:
        self.steps.append(sentence)
        for command in commands if not self.module.check_mode else ():
            self.cluster.run(command)

    def noted(self) -> bool:
        return bool(self.cluster.ask([["config-key", "exists", self.note]], strict=False)[0]["code"] == 0)

    def lost(self) -> None:
        if self.noted():
            self.awaited_before = True
            return
        view = ceph_hosts.read_hosts(self.cluster)
        if faults := ceph_hosts.lost(view, self.name):
            self.refuse(faults, view)
        if self.name in view["monitors"]:
            self.do(f"mon.{self.name} leaves the monitors' map", ["mon", "remove", self.name])

    def awaited(self) -> None:
        if not self.noted():
            self.do(f"{self.name} is awaited", ["config-key", "set", self.note, "awaited"])

    def returned(self) -> None:
        if self.noted():
            self.do(f"{self.name} is back", ["config-key", "rm", self.note])

    def drained(self) -> None:
        view = ceph_hosts.read_hosts(self.cluster)
        if faults := ceph_hosts.undrainable(view, self.name, self.module.params["members"]):
            self.refuse(faults, view)
        if self.name not in view["hosts"]:
            return
        if "_no_schedule" not in view["hosts"][self.name]["labels"]:
            self.do(f"{self.name} is drained", ["orch", "host", "drain", self.name, "--force", "--keep-conf-keyring"])
        if self.module.check_mode:
            self.steps.append(f"{self.name} is removed")
            return
        deadline = time.monotonic() + self.module.params["timeout_seconds"]
        while left := ceph_hosts.left_on(view, self.name):
            # Monitors are placed one by one, so the orchestrator does not take them away by itself.
            if f"mon.{self.name}" in left and not any(name.startswith("osd.") for name in left):
                self.remove_monitor()
            if time.monotonic() > deadline:
                status = self.cluster.run(["orch", "osd", "rm", "status"])
                self.module.fail_json(
                    msg=(
                        f"{self.name} still carries {', '.join(left)}. It goes on draining; run again to follow.\n"
                        f"{status}"
                    ),
                    steps=self.steps,
                )
            time.sleep(POLL_SECONDS)
            view = self.look(view)
        self.do(f"{self.name} is removed", ["orch", "host", "rm", self.name, "--force", "--rm-crush-entry"])

    def look(self, last: dict[str, Any]) -> dict[str, Any]:
        try:
            return ceph_hosts.read_hosts(self.cluster)
        except CephError:  # a manager on its way to another host; the deadline is the caller's
            return last

    def remove_monitor(self) -> None:
        try:
            self.do(f"mon.{self.name} is removed", ["orch", "daemon", "rm", f"mon.{self.name}", "--force"])
        except CephError as error:
            if error.code != errno.EINVAL:  # gone meanwhile
                raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "required": True, "choices": ["lost", "awaited", "returned", "drained"]},
            "timeout_seconds": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    leave = Leave(module)
    try:
        getattr(leave, module.params["state"])()
    except CephError as error:
        module.fail_json(msg=f"{module.params['name']} could not leave: {error}", steps=leave.steps)
    module.exit_json(changed=bool(leave.steps), steps=leave.steps, awaited=leave.awaited_before)


if __name__ == "__main__":
    main()
