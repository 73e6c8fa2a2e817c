"""Ansible module: prepare the replacement of a lost host, or drain a host and remove it from the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_host
short_description: Remove a host of a Ceph cluster, to replace it or for good
description:
  - V(lost) prepares the replacement of a host whose machine is lost. It removes its monitor from the monitor map, so
    that a new one with that name can join. Its OSDs stay, since their volumes may still exist. It fails while a daemon
    of the host is up.
  - V(replacing) sets a config-key that marks the replacement as started, so that a run after an interrupted one accepts
    a host that is already back; V(replaced) removes that key.
  - V(drained) moves all data and daemons off a host and then removes it, also from the CRUSH map. It fails when the
    remaining hosts cannot hold the data.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Checks the preconditions and reports the steps.
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
    description: With V(drained), the remaining hosts.
  state:
    type: str
    choices: [lost, replacing, replaced, drained]
    required: true
    description: Wanted state of the host.
  timeout_seconds:
    type: int
    default: 3600
    description: Timeout in seconds for the drain; the cluster continues it, and the next run waits for it again.
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
replacement_started:
  description: Whether an earlier run has started the replacement.
  returned: always
  type: bool
steps:
  description: Steps that were run, or would be.
  returned: always
  type: list
  elements: str
"""

import errno
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_hosts
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 3.0


class HostRemoval:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.name = module, module.params["name"]
        self.cluster = Cluster(module.run_command, module.params["fsid"])
        self.marker_key = f"slipway/awaited/{self.name}"
        self.replacement_started = False
        self.steps: list[str] = []

    def reject(self, faults: list[str], view: dict[str, Any]) -> NoReturn:
        self.module.fail_json(
            msg=f"{' '.join(faults)} Nothing was changed.\n{ceph_health.detail(view['health'])}", steps=self.steps
        )
        raise SystemExit(1)

    def run_step(self, summary: str, *commands: list[str]) -> None:
        self.steps.append(summary)
        for command in commands if not self.module.check_mode else ():
            self.cluster.run(command)

    def marked(self) -> bool:
        return bool(self.cluster.execute([["config-key", "exists", self.marker_key]], strict=False)[0]["code"] == 0)

    def lost(self) -> None:
        if self.marked():
            self.replacement_started = True
            return
        view = ceph_hosts.read_hosts(self.cluster)
        if faults := ceph_hosts.lost_faults(view, self.name):
            self.reject(faults, view)
        if self.name in view["monitors"]:
            self.run_step(f"remove mon.{self.name} from the monitor map", ["mon", "remove", self.name])

    def replacing(self) -> None:
        if not self.marked():
            self.run_step(
                f"mark the replacement of {self.name} as started", ["config-key", "set", self.marker_key, "awaited"]
            )

    def replaced(self) -> None:
        if self.marked():
            self.run_step(f"remove the marker of {self.name}", ["config-key", "rm", self.marker_key])

    def drained(self) -> None:
        view = ceph_hosts.read_hosts(self.cluster)
        if faults := ceph_hosts.drain_faults(view, self.name, self.module.params["members"]):
            self.reject(faults, view)
        if self.name not in view["hosts"]:
            return
        if "_no_schedule" not in view["hosts"][self.name]["labels"]:
            self.run_step(f"drain {self.name}", ["orch", "host", "drain", self.name, "--force", "--keep-conf-keyring"])
        if self.module.check_mode:
            self.steps.append(f"remove {self.name}")
            return
        try:
            wait_until(
                self.name,
                lambda: ceph_hosts.remaining_daemons(ceph_hosts.read_hosts(self.cluster), self.name),
                self.not_removed,
                timeout_seconds=self.module.params["timeout_seconds"],
                interval_seconds=POLL_SECONDS,
                passing=CephError,
            )
        except NotMet as error:
            status = self.cluster.run(["orch", "osd", "rm", "status"])
            self.module.fail_json(
                msg=f"{error}. The drain continues; run again to wait for it.\n{status}", steps=self.steps
            )
        self.run_step(f"remove {self.name}", ["orch", "host", "rm", self.name, "--force", "--rm-crush-entry"])

    def not_removed(self, daemons: list[str]) -> list[str]:
        """Daemons that are left. The orchestrator does not remove monitors: they are unmanaged."""
        if f"mon.{self.name}" in daemons and not any(name.startswith("osd.") for name in daemons):
            self.remove_monitor()
        return [f"{', '.join(daemons)} not removed"] if daemons else []

    def remove_monitor(self) -> None:
        try:
            self.run_step(f"remove mon.{self.name}", ["orch", "daemon", "rm", f"mon.{self.name}", "--force"])
        except CephError as error:
            if error.code != errno.EINVAL:  # already removed
                raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "members": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "required": True, "choices": ["lost", "replacing", "replaced", "drained"]},
            "timeout_seconds": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    removal = HostRemoval(module)
    try:
        getattr(removal, module.params["state"])()
    except CephError as error:
        module.fail_json(msg=f"{module.params['name']}: {error}. Correct the cause and run again.", steps=removal.steps)
    module.exit_json(changed=bool(removal.steps), steps=removal.steps, replacement_started=removal.replacement_started)


if __name__ == "__main__":
    main()
