#!/usr/bin/python
"""Ansible module: compare a host with the state that the last runs verified."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_drift
short_description: Compare a host with the state that the last runs verified
description:
  - Compares the files, folders, services, timers and active rules of every unit that M(slipway.platform.configuration)
    has recorded on the host, and the files that a service read at its start, with the current ones.
  - Lists file systems that are nearly full or became read-only.
  - Differences from the inventory are not found; a run with C(--check) finds them.
options:
  full_percent:
    description: Share of used space or inodes in percent from which a file system is a finding.
    type: int
    default: 90
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reads only.}
  diff_mode: {support: none, description: Reads only.}
"""

EXAMPLES = r"""
- name: Compare the host with its verified state
  slipway.platform.host_drift:
  register: host_drift
"""

RETURN = r"""
findings:
  description: One sentence for each difference.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.configuration import ConfigurationError
from ansible_collections.slipway.platform.plugins.module_utils.host_drift import host_findings


def main() -> None:
    module = AnsibleModule(
        argument_spec={"full_percent": {"type": "int", "default": 90}},
        supports_check_mode=True,
    )
    try:
        findings = host_findings(module, module.params["full_percent"])
    except ConfigurationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
