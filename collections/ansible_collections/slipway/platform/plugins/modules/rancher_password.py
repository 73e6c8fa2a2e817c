"""Ansible module: set the password of Rancher's administrator."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rancher_password
short_description: Set the password of Rancher's first administrator, and end its sessions
description:
  - Compares the declared password with Rancher's hash and changes it by a PasswordChangeRequest when it is another one.
  - The password is in the body of a request over TLS, in no argument and in no file.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Compares, and changes nothing.
options:
  password:
    type: str
    required: true
    description: The password.
  end_sessions:
    type: bool
    default: false
    description: Whether the administrator's sessions, API keys and kubeconfigs end too.
  timeout_seconds:
    type: int
    default: 120
    description: Seconds to wait for Rancher's aggregated API.
"""

EXAMPLES = r"""
- name: Set the password
  slipway.platform.rancher_password:
    password: "{{ rancher_admin_password }}"
    end_sessions: true
"""

RETURN = r"""
ended_sessions:
  description: Number of sessions, API keys and kubeconfigs that ended, or would end.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi
from ansible_collections.slipway.platform.plugins.module_utils.rancher import (
    PASSING,
    RancherError,
    administrator_of,
    end_sessions,
    has_password,
    sessions,
    set_password,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "password": {"type": "str", "required": True, "no_log": True},
            "end_sessions": {"type": "bool", "default": False},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    parameters = module.params

    def converge() -> tuple[bool, int]:
        api = KubernetesApi()
        user = administrator_of(api)
        if not user:
            raise RancherError("Rancher: has no first administrator. Run playbooks/rancher.yml first.")
        different = not has_password(api, user, parameters["password"])
        if different and not module.check_mode:
            set_password(api, user, parameters["password"])
        paths = sessions(api, user) if parameters["end_sessions"] else []
        if not module.check_mode:
            end_sessions(api, paths)
        return different or bool(paths), len(paths)

    try:
        changed, ended = wait_until(
            "the password of Rancher's administrator",
            converge,
            lambda _: [],
            timeout_seconds=parameters["timeout_seconds"],
            interval_seconds=2,
            passing=PASSING,
        )
    except NotMet as error:
        module.fail_json(msg=f"{error}. Check the pods of deployment cattle-system/rancher, then run again.")
    except (ApiError, RancherError) as error:
        module.fail_json(msg=f"{error} Correct the cause, then run again.")
    module.exit_json(changed=changed, ended_sessions=ended)


if __name__ == "__main__":
    main()
