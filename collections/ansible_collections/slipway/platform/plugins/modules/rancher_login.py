"""Ansible module: use Rancher as a user does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rancher_login
short_description: Log in to Rancher under its public name, read the local cluster and log out
description:
  - Fails unless the certificate is valid for the name, the password is accepted and the local cluster is active.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Not run; the module returns at once.
options:
  name:
    type: str
    required: true
    description: Public name of Rancher.
  address:
    type: str
    required: true
    description: Address to connect to, port 443.
  ca_certificate:
    type: str
    default: ""
    description: Authority of its certificate, in PEM form; empty for the authorities that the system trusts.
  password:
    type: str
    required: true
    description: Password of the administrator.
  timeout_seconds:
    type: int
    default: 120
    description: Seconds until the module fails.
"""

EXAMPLES = r"""
- name: Use Rancher
  slipway.platform.rancher_login:
    name: rancher.example.org
    address: 203.0.113.10
    password: "{{ rancher_admin_password }}"
"""

RETURN = r""" # """

import ssl

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.rancher import PASSING, RancherError, Site, use
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "ca_certificate": {"type": "str", "default": ""},
            "password": {"type": "str", "required": True, "no_log": True},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    site = Site(given["name"], given["address"], given["ca_certificate"])

    def attempt() -> list[str]:
        try:
            return use(site, given["password"])
        except ssl.SSLCertVerificationError as error:
            raise RancherError(
                f"https://{given['name']}: TLS verification failed at {given['address']} ({error.verify_message}). "
                "Run playbooks/load_balancer.yml with the name in platform_ingress_names."
            ) from error

    try:
        wait_until(
            f"https://{given['name']} at {given['address']}",
            attempt,
            lambda faults: faults,
            timeout_seconds=given["timeout_seconds"],
            interval_seconds=2,
            passing=PASSING,
        )
    except NotMet as error:
        module.fail_json(
            msg=f"{error}. Check the pods of deployment cattle-system/rancher and its Ingress, then run again."
        )
    except RancherError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
