"""Ansible module: give the daemons, the administrator and named clients of a cluster new keys, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_keys
short_description: Rotate the keys of a Ceph cluster
description:
  - Each call does one step; call it in a loop until O(ignore:done). Managers first, then metadata servers, gateways,
    and what reports crashes; then the administrator; then the clients that were named.
  - Daemons of services that the orchestrator does not manage, as monitors and OSDs are here, keep their keys; an
    upgrade rotates those.
  - Before a daemon is touched the cluster has to be whole, and after it the daemon has to be back.
  - How old a key is stands in the key, so a run that was killed is taken up by the next one.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says the next step and does not do it.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  since:
    type: float
    required: true
    description: Seconds since 1970; keys made before are due.
  key_type:
    type: str
    choices: [aes, aes256k]
    default: aes256k
    description: Type of the daemons' and the administrator's new keys.
  clients:
    type: list
    elements: str
    default: []
    description: Clients that get a new key too, like client.csi-rbd. They are shut out until they have learned it.
  client_key_type:
    type: str
    choices: [aes, aes256k]
    default: aes
    description: Type of the clients' new keys; kernels before 7.0 know aes only.
  monitors:
    type: list
    elements: str
    default: []
    description: Monitors that have to be in the quorum.
  accepted_warnings:
    type: list
    elements: str
    default: []
    description: Codes of warnings that are no reason to stop.
  timeout_seconds:
    type: int
    default: 300
    description: Seconds in which the cluster has to be whole before a step, and the daemon back after it.
"""

EXAMPLES = r"""
- name: Give everything new keys
  slipway.platform.ceph_keys:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    since: "{{ started_at }}"
  register: step
  loop: "{{ range(0, 100) | list }}"
  loop_control:
    break_when: step.done
"""

RETURN = r"""
done:
  description: Whether no key is due any more.
  returned: always
  type: bool
left:
  description: Daemons whose keys are left as they are.
  returned: always
  type: list
  elements: str
sentence:
  description: What was done.
  returned: always
  type: str
"""

import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_keys
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster

POLL_SECONDS = 3.0
SECOND_ADMIN = "client.slipway-rotation"
ALL = ["mon", "allow *", "mgr", "allow *", "osd", "allow *", "mds", "allow *"]
INSECURE = ["mon", "mon_auth_allow_insecure_key"]


class Rotation:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.given = module, module.params
        self.cluster = Cluster(module.run_command, self.given["fsid"])

    def until(self, unmet: Callable[[], list[str]], what: str) -> None:
        deadline = time.monotonic() + self.given["timeout_seconds"]
        while True:
            try:
                left = unmet()
            except CephError as error:
                left = [str(error)]
            if not left:
                return
            if time.monotonic() > deadline:
                self.module.fail_json(
                    msg=f"{what}: {'; '.join(left)}. Put that right and run again: keys that are new stay as they are."
                )
            time.sleep(POLL_SECONDS)

    def unwell(self) -> list[str]:
        return ceph_health.unmet(
            ceph_health.read(self.cluster, []),
            monitors=self.given["monitors"],
            managers=2,
            accepted=self.given["accepted_warnings"],
            nearfull=0.95,
        )

    def run(self) -> None:
        view = ceph_keys.read(self.cluster)
        if faults := ceph_keys.faults(view, self.given["clients"]):
            self.module.fail_json(msg=" ".join(faults))
        step = ceph_keys.next_step(
            view, since=self.given["since"], key_type=self.given["key_type"], clients=self.given["clients"]
        )
        if step is None:
            self.module.exit_json(
                changed=self.forget_second_admin(), done=True, sentence="every key is new", left=view["left"]
            )
        if not self.module.check_mode:
            self.until(self.unwell, f"Before {step.sentence} the cluster is not well")
            getattr(self, step.action)(step.name)
        self.module.exit_json(changed=True, done=self.module.check_mode, sentence=step.sentence, left=view["left"])

    def rotate(self, entity: str) -> None:
        if entity == "client.admin":
            # Should the answer be lost on its way, this one can still fetch the new key.
            self.cluster.run(["auth", "get-or-create", SECOND_ADMIN, *ALL])
        if entity not in self.given["clients"]:
            self.cluster.run(["auth", "rotate", entity, f"--key-type={self.given['key_type']}"])
            return
        key_type = self.given["client_key_type"]
        if key_type == "aes":
            self.cluster.run(["config", "set", *INSECURE, "true"])
        try:
            self.cluster.run(["auth", "rotate", entity, f"--key-type={key_type}"])
        finally:
            if key_type == "aes":
                self.cluster.run(["config", "set", *INSECURE, "false"])

    def fail(self, daemon: str) -> None:
        self.cluster.run(["mgr", "fail", daemon.removeprefix("mgr.")])

        def unready() -> list[str]:
            view = ceph_keys.read(self.cluster)
            if view["active"] in ("mgr.", daemon):
                return ["no other is active"]
            return [] if view["standbys"] else ["it does not stand by yet"]

        self.until(unready, f"{daemon} does not hand over")

    def redeploy(self, daemon: str) -> None:
        entity = ceph_keys.entity_of(daemon)
        self.cluster.run(["orch", "daemon", "redeploy", daemon])

        def stale() -> list[str]:
            view = ceph_keys.read(self.cluster)
            started = view["daemons"].get(daemon, 0.0)
            return [] if started >= view["keys"][entity].made_at else ["it has not been started anew yet"]

        self.until(stale, f"{daemon} was to be started with its new key")
        self.until(self.unwell, f"After {daemon} learned its new key the cluster is not well")

    def forget_second_admin(self) -> bool:
        there = bool(self.cluster.ask([["auth", "get", SECOND_ADMIN]], strict=False)[0]["code"] == 0)
        if there and not self.module.check_mode:
            self.cluster.run(["auth", "rm", SECOND_ADMIN])
        return there


def main() -> None:
    types: dict[str, Any] = {"type": "str", "choices": ["aes", "aes256k"]}
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "since": {"type": "float", "required": True},
            "key_type": types | {"default": "aes256k", "no_log": False},
            "clients": {"type": "list", "elements": "str", "default": []},
            "client_key_type": types | {"default": "aes", "no_log": False},
            "monitors": {"type": "list", "elements": "str", "default": []},
            "accepted_warnings": {"type": "list", "elements": "str", "default": []},
            "timeout_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        Rotation(module).run()
    except CephError as error:
        module.fail_json(msg=f"The keys could not all be rotated: {error}. Run again: keys that are new stay.")


if __name__ == "__main__":
    main()
