"""Ansible module: rotate the keys of daemons, of client.admin and of named clients, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_keys
short_description: Rotate the keys of a Ceph cluster
description:
  - Each call does one step; call it in a loop until RV(done). The order is managers, metadata servers, gateways,
    crash daemons, client.admin, the named clients.
  - Daemons of unmanaged services, which monitors and OSDs are here, keep their keys; an upgrade rotates those.
  - The cluster must be healthy before each step, and the daemon must be up after it.
  - A key contains its creation time, so the next run continues an interrupted rotation.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the next step without running it.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  since:
    type: float
    required: true
    description: Unix time; keys created before it are rotated.
  key_type:
    type: str
    choices: [aes, aes256k]
    default: aes256k
    description: Type of the daemons' and the administrator's new keys.
  clients:
    type: list
    elements: str
    default: []
    description: Clients to rotate too, like client.csi-rbd. They have no access until they use the new key.
  client_key_type:
    type: str
    choices: [aes, aes256k]
    default: aes
    description: Type of the clients' new keys; kernels before 7.0 support aes only.
  monitors:
    type: list
    elements: str
    default: []
    description: Monitors that must be in the quorum.
  accepted_warnings:
    type: list
    elements: str
    default: []
    description: Codes of warnings that are ignored.
  timeout_seconds:
    type: int
    default: 300
    description: Timeout in seconds for a healthy cluster before a step, and for the daemon after it.
"""

EXAMPLES = r"""
- name: Rotate all keys
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
  description: Whether no key is left to rotate.
  returned: always
  type: bool
unmanaged:
  description: Daemons whose keys are not rotated.
  returned: always
  type: list
  elements: str
summary:
  description: The step that was run.
  returned: always
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_keys
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 3.0
ROTATION_ADMIN = "client.slipway-rotation"
ADMIN_CAPS = ["mon", "allow *", "mgr", "allow *", "osd", "allow *", "mds", "allow *"]
INSECURE_KEY_OPTION = ["mon", "mon_auth_allow_insecure_key"]


class Rotation:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.given = module, module.params
        self.cluster = Cluster(module.run_command, self.given["fsid"])

    def wait(self, unmet: Callable[[], list[str]], condition: str) -> None:
        try:
            wait_until(
                condition,
                unmet,
                lambda reasons: reasons,
                timeout_seconds=self.given["timeout_seconds"],
                interval_seconds=POLL_SECONDS,
                passing=CephError,
            )
        except NotMet as error:
            self.module.fail_json(msg=f"{error}. Correct the cause and run again: new keys are not rotated again.")

    def health_faults(self) -> list[str]:
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
                changed=self.remove_rotation_admin(),
                done=True,
                summary="no key left to rotate",
                unmanaged=view["unmanaged"],
            )
        if not self.module.check_mode:
            self.wait(self.health_faults, f"The cluster is not healthy before '{step.summary}'")
            getattr(self, step.action)(step.name)
        self.module.exit_json(
            changed=True, done=self.module.check_mode, summary=step.summary, unmanaged=view["unmanaged"]
        )

    def rotate(self, entity: str) -> None:
        if entity == "client.admin":
            # If the answer with the new key is lost, this client can still fetch it.
            self.cluster.run(["auth", "get-or-create", ROTATION_ADMIN, *ADMIN_CAPS])
        if entity not in self.given["clients"]:
            self.cluster.run(["auth", "rotate", entity, f"--key-type={self.given['key_type']}"])
            return
        key_type = self.given["client_key_type"]
        if key_type == "aes":
            self.cluster.run(["config", "set", *INSECURE_KEY_OPTION, "true"])
        try:
            self.cluster.run(["auth", "rotate", entity, f"--key-type={key_type}"])
        finally:
            if key_type == "aes":
                self.cluster.run(["config", "set", *INSECURE_KEY_OPTION, "false"])

    def fail(self, daemon: str) -> None:
        self.cluster.run(["mgr", "fail", daemon.removeprefix("mgr.")])

        self.wait(
            lambda: ceph_keys.failover_faults(ceph_keys.read(self.cluster), daemon),
            f"The failover from {daemon} is not complete",
        )

    def redeploy(self, daemon: str) -> None:
        self.cluster.run(["orch", "daemon", "redeploy", daemon])

        self.wait(
            lambda: ceph_keys.restart_faults(ceph_keys.read(self.cluster), daemon),
            f"{daemon} does not run with its new key",
        )
        self.wait(self.health_faults, f"The cluster is not healthy after the restart of {daemon}")

    def remove_rotation_admin(self) -> bool:
        exists = bool(self.cluster.execute([["auth", "get", ROTATION_ADMIN]], strict=False)[0]["code"] == 0)
        if exists and not self.module.check_mode:
            self.cluster.run(["auth", "rm", ROTATION_ADMIN])
        return exists


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
        module.fail_json(msg=f"Key rotation: {error}. Correct the cause and run again: new keys are not rotated again.")


if __name__ == "__main__":
    main()
