"""Ansible module: take a Ceph cluster to another image, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_upgrade
short_description: Plan, start and follow the orchestrator's upgrade of a Ceph cluster
description:
  - The orchestrator itself replaces daemon after daemon, in the right order and asking ok-to-stop each time. This
    module refuses what must not begin, starts or resumes it, and follows it until something changes.
  - It reads what runs, so a run that was killed is taken up by the next one.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: V(planned) only reads; V(started) says whether it would; V(followed) returns at once.
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
    description: The oldest version of each major that may be asked for.
  state:
    type: str
    choices: [planned, started, followed, finished]
    required: true
    description:
      - V(planned) compares and refuses; V(started) starts or resumes; V(followed) waits until it has come a step
        further; V(finished) fails unless every daemon runs the image and the version, and require_osd_release is that
        of it.
  seen:
    type: str
    default: ""
    description: With V(followed), the progress seen last.
  timeout_seconds:
    type: int
    default: 600
    description: Seconds without any progress after which V(followed) gives up; the upgrade itself is left as it is.
"""

EXAMPLES = r"""
- name: Start it
  slipway.platform.ceph_upgrade:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    image: quay.io/ceph/ceph@sha256:6bb1c8a42fbc0bf87938946990b65174466997bc11c31eb5a323225a779fd8f9
    version: 20.2.4
    floors: [20.2.4, 21.2.0]
    state: started
"""

RETURN = r"""
action:
  description: What is to be done from here, start, resume, follow or none.
  returned: always
  type: str
progress:
  description: How far it is, in one line.
  returned: always
  type: str
done:
  description: Whether no upgrade is under way and every daemon runs the image.
  returned: always
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import ceph_health, ceph_upgrade
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster

POLL_SECONDS = 3.0
LOOKS_BEFORE_ERROR = 3
"""A restarting daemon may show as an error for a moment; one that stands stops the upgrade."""
ANSWER_SECONDS = 60.0
"""Managers and monitors are replaced while it goes on: for moments nobody answers."""


class Upgrade:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.given = module, module.params
        self.cluster = Cluster(module.run_command, self.given["fsid"])
        self.image = self.given["image"]

    def leave(self, view: dict[str, Any], changed: bool = False) -> None:
        action = ceph_upgrade.action(view, self.image)
        self.module.exit_json(
            changed=changed,
            action=action,
            progress=ceph_upgrade.summary(view, self.image),
            done=action == "none",
        )

    def read(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return ceph_upgrade.read(self.cluster)
            except CephError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def planned(self) -> None:
        view = self.read()
        found = ceph_upgrade.faults(view, self.image, self.given["version"], self.given["floors"])
        if found:
            self.module.fail_json(msg="\n".join(found))
        self.leave(view, changed=self.module.check_mode and ceph_upgrade.action(view, self.image) != "none")

    def started(self) -> None:
        view = self.read()
        action = ceph_upgrade.action(view, self.image)
        if action in ("start", "resume") and not self.module.check_mode:
            command = ["start", "--image", self.image] if action == "start" else ["resume"]
            self.cluster.run(["orch", "upgrade", *command])
            view = self.read()
        self.leave(view, changed=action in ("start", "resume"))

    def finished(self) -> None:
        view = self.read()
        left = ceph_upgrade.unfinished(view, self.image, self.given["version"])
        if left and not self.module.check_mode:
            self.module.fail_json(
                msg=f"The upgrade ended and is not whole: {'; '.join(left)}. Run again; see also ceph orch ps."
            )
        self.leave(view)

    def errors(self) -> list[str]:
        """Health errors that stand while it goes on."""
        seen = ceph_health.read(self.cluster, [])
        checks = [check for check in seen["checks"] if check["severity"] == "HEALTH_ERR" and not check["muted"]]
        return [f"{check['code']}: {check['summary']}" for check in checks]

    def followed(self) -> None:
        deadline = time.monotonic() + self.given["timeout_seconds"]
        last, bad = "nothing could be read", 0
        while True:
            try:
                view = ceph_upgrade.read(self.cluster)
                last = ceph_upgrade.summary(view, self.image)
                action = ceph_upgrade.action(view, self.image)
                if self.module.check_mode or action == "none":
                    self.leave(view)
                halted, errors = ceph_upgrade.halted(view), self.errors()
                bad = bad + 1 if errors else 0
                if halted or bad >= LOOKS_BEFORE_ERROR:
                    self.stop(view, halted or "; ".join(errors))
                if last != self.given["seen"] and action != "start":
                    self.leave(view)
            except CephError as error:
                # Managers and monitors are replaced, this host's too: for moments nobody answers.
                last = str(error)
            if time.monotonic() > deadline:
                self.module.fail_json(
                    msg=(
                        f"The upgrade to {self.image} came no step further in {self.given['timeout_seconds']} s; "
                        f"{last}. It is still under way: look at ceph orch upgrade status and ceph log last cephadm, "
                        "and run again."
                    )
                )
            time.sleep(POLL_SECONDS)

    def stop(self, view: dict[str, Any], reason: str) -> None:
        if not view["paused"]:
            self.cluster.run(["orch", "upgrade", "pause"])
        health = ceph_health.detail(ceph_health.read(self.cluster, []))
        self.module.fail_json(
            msg=(
                f"The upgrade to {self.image} is halted ({ceph_upgrade.summary(view, self.image)}): {reason}. Put that "
                f"right and run again: it goes on from there.\n{health}"
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
            "seen": {"type": "str", "default": ""},
            "timeout_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    upgrade = Upgrade(module)
    try:
        getattr(upgrade, module.params["state"])()
    except (CephError, ValueError) as error:
        module.fail_json(msg=f"{error}")


if __name__ == "__main__":
    main()
