"""Ansible module: read what is installed of Rancher."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rancher_state
short_description: Read the installed version of Rancher and whether its administrator has the declared password
description:
  - Reads the Kubernetes API of the server that it runs on, and changes nothing.
  - Passwords are compared by Rancher's own hash, so that no session is opened.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only. Without a Kubernetes API nothing is installed.
options:
  password:
    type: str
    required: true
    description: Declared password of the administrator.
  version:
    type: str
    required: true
    description: Declared version, for RV(findings).
  timeout_seconds:
    type: int
    default: 60
    description: Seconds to wait for an API that does not answer.
"""

EXAMPLES = r"""
- name: Read what is installed
  slipway.platform.rancher_state:
    version: 2.15.0
    password: "{{ rancher_admin_password }}"
  register: state
"""

RETURN = r"""
state:
  description: Installed version, the server's own one, administrator, state of password, local cluster and telemetry.
  returned: success
  type: dict
findings:
  description: What is wrong, one sentence each.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi
from ansible_collections.slipway.platform.plugins.module_utils.rancher import (
    PASSING,
    RancherError,
    findings,
    read_state,
)
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import ETC
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

ABSENT = {
    "installed_version": "",
    "administrator": "",
    "password_current": False,
    "local_active": False,
    "telemetry_enabled": False,
    "server_version": "",
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "password": {"type": "str", "required": True, "no_log": True},
            "version": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if module.check_mode and not (ETC / "rke2/rke2.yaml").exists():
        module.exit_json(changed=False, state=ABSENT, findings=findings(ABSENT, parameters["version"]))
    try:
        state = wait_until(
            "the Kubernetes API of this server",
            lambda: read_state(KubernetesApi(), parameters["password"]),
            lambda _: [],
            timeout_seconds=parameters["timeout_seconds"],
            interval_seconds=2,
            passing=PASSING,
        )
    except NotMet as error:
        module.fail_json(msg=f"{error}. Correct its cause with playbooks/rke2.yml, then run again.")
    except (ApiError, RancherError) as error:
        module.fail_json(msg=f"{error} Correct the cause, then run again.")
    module.exit_json(changed=False, state=state, findings=findings(state, parameters["version"]))


if __name__ == "__main__":
    main()
