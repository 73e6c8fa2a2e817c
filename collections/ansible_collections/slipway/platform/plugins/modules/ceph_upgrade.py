"""Ansible module: upgrade a Ceph cluster to another image, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_upgrade
short_description: Plan, start and follow the orchestrator's upgrade of a Ceph cluster
description:
  - The orchestrator redeploys one daemon after the other, in the right order and after ok-to-stop. This module checks
    the preconditions, starts or resumes the upgrade, and waits for its progress.
  - It reads the running state, so the next run continues an interrupted one.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: V(planned) only reads; V(started) reports whether it would; V(followed) returns at once.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  image:
    type: str
    required: true
    description: The image, by digest.
  version:
    type: str
    required: true
    description: Version of Ceph in that image, like 20.2.5.
  floors:
    type: list
    elements: str
    required: true
    description: The oldest permitted version of each major release.
  state:
    type: str
    choices: [planned, started, followed, finished]
    required: true
    description:
      - V(planned) checks the preconditions; V(started) starts or resumes; V(followed) waits for the next progress;
        V(finished) fails unless every daemon runs the image and the version, and require_osd_release is its release.
  last_progress:
    type: str
    default: ""
    description: With V(followed), the progress that the previous call returned.
  timeout_seconds:
    type: int
    default: 600
    description: Timeout in seconds of V(followed) without progress; the upgrade itself continues.
"""

EXAMPLES = r"""
- name: Start the upgrade
  slipway.platform.ceph_upgrade:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    image: quay.io/ceph/ceph@sha256:6bb1c8a42fbc0bf87938946990b65174466997bc11c31eb5a323225a779fd8f9
    version: 20.2.4
    floors: [20.2.4, 21.2.0]
    state: started
"""

RETURN = r"""
action:
  description: The next action, start, resume, follow or none.
  returned: always
  type: str
progress:
  description: Progress in one line.
  returned: always
  type: str
done:
  description: Whether no upgrade is in progress and every daemon runs the image.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_upgrade
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 3.0
READS_BEFORE_FAILURE = 3
"""A restarting daemon may cause a short health error; only a persistent one stops the upgrade."""
ANSWER_SECONDS = 60.0
"""Timeout of one read: commands fail while managers and monitors restart."""


class Upgrade:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.given = module, module.params
        self.cluster = Cluster(module.run_command, self.given["fsid"])
        self.image = self.given["image"]

    def exit_with(self, view: dict[str, Any], changed: bool = False) -> None:
        action = ceph_upgrade.action(view, self.image)
        self.module.exit_json(
            changed=changed,
            action=action,
            progress=ceph_upgrade.summary(view, self.image),
            done=action == "none",
        )

    def read(self) -> dict[str, Any]:
        return wait_until(
            "Status of the upgrade",
            lambda: ceph_upgrade.read(self.cluster),
            lambda view: [],
            timeout_seconds=ANSWER_SECONDS,
            interval_seconds=POLL_SECONDS,
            passing=CephError,
        )

    def planned(self) -> None:
        view = self.read()
        found = ceph_upgrade.faults(view, self.image, self.given["version"], self.given["floors"])
        if found:
            self.module.fail_json(msg="\n".join(found))
        self.exit_with(view, changed=self.module.check_mode and ceph_upgrade.action(view, self.image) != "none")

    def started(self) -> None:
        view = self.read()
        action = ceph_upgrade.action(view, self.image)
        if action in ("start", "resume") and not self.module.check_mode:
            command = ["start", "--image", self.image] if action == "start" else ["resume"]
            self.cluster.run(["orch", "upgrade", *command])
            view = self.read()
        self.exit_with(view, changed=action in ("start", "resume"))

    def finished(self) -> None:
        view = self.read()
        differences = ceph_upgrade.unfinished(view, self.image, self.given["version"])
        if differences and not self.module.check_mode:
            self.module.fail_json(
                msg=f"Upgrade to {self.image}: incomplete, {'; '.join(differences)}. Run again, and read ceph orch ps."
            )
        self.exit_with(view)

    def errors(self) -> list[str]:
        """Health errors that are not muted."""
        health = ceph_health.read(self.cluster, [])
        checks = [check for check in health["checks"] if check["severity"] == "HEALTH_ERR" and not check["muted"]]
        return [f"{check['code']}: {check['summary']}" for check in checks]

    def followed(self) -> None:
        unhealthy_reads = 0

        def without_progress(view: dict[str, Any]) -> list[str]:
            nonlocal unhealthy_reads
            progress, action = ceph_upgrade.summary(view, self.image), ceph_upgrade.action(view, self.image)
            if self.module.check_mode or action == "none":
                return []
            halted, errors = ceph_upgrade.halted(view), self.errors()
            unhealthy_reads = unhealthy_reads + 1 if errors else 0
            if halted or unhealthy_reads >= READS_BEFORE_FAILURE:
                self.pause(view, halted or "; ".join(errors))
            return [] if progress != self.given["last_progress"] and action != "start" else [progress]

        try:
            view = wait_until(
                f"Upgrade to {self.image}: no progress",
                lambda: ceph_upgrade.read(self.cluster),
                without_progress,
                timeout_seconds=self.given["timeout_seconds"],
                interval_seconds=POLL_SECONDS,
                passing=CephError,
            )
        except NotMet as error:
            self.module.fail_json(
                msg=(
                    f"{error}. It is still in progress: read ceph orch upgrade status and ceph log last cephadm, and "
                    "run again."
                )
            )
        self.exit_with(view)

    def pause(self, view: dict[str, Any], reason: str) -> None:
        if not view["paused"]:
            self.cluster.run(["orch", "upgrade", "pause"])
        health = ceph_health.detail(ceph_health.read(self.cluster, []))
        self.module.fail_json(
            msg=(
                f"Upgrade to {self.image}: paused ({ceph_upgrade.summary(view, self.image)}), {reason}. Correct the "
                f"cause and run again: the run resumes the upgrade.\n{health}"
            )
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "floors": {"type": "list", "elements": "str", "required": True},
            "state": {
                "type": "str",
                "required": True,
                "choices": ["planned", "started", "followed", "finished"],
            },
            "last_progress": {"type": "str", "default": ""},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    upgrade = Upgrade(module)
    try:
        getattr(upgrade, module.params["state"])()
    except (CephError, NotMet, ValueError) as error:
        module.fail_json(msg=f"{error}")


if __name__ == "__main__":
    main()
