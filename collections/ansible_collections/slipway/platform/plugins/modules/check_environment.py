#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: check_environment
short_description: Validate an environment as a whole and list every fault at once
description:
  - Validates the inventory against the specs of all roles, the network plan, quorum, names, versions, keys and
    secrets, and against what the cloud offers. Changes nothing.
  - All faults are listed, by file and line, each with the value seen and the remedy.
  - Runs on the controller as an action (docs/adr/0005), because variables can be resolved one by one only there.
author: [Slipway]
options:
  roles_dir:
    description: Folder of the roles whose specs apply.
    type: path
    required: true
  playbooks_dir:
    description: Folder of the plays; C(check.meta.yml) in it describes the shared values.
    type: path
    required: true
  inventory_dir:
    description: Folder of the inventory.
    type: path
    required: true
  api_enabled:
    description: Whether to validate against the cloud's API as well.
    type: bool
    default: true
attributes:
  check_mode: {support: full, description: Only reads.}
  diff_mode: {support: none, description: Only reads.}
"""

EXAMPLES = r"""
- name: Check the environment
  slipway.platform.check_environment:
    roles_dir: roles
    playbooks_dir: playbooks
    inventory_dir: inventories/prod
"""

RETURN = r"""
msg:
  description: Every fault, one a line, by file and line.
  returned: when there are faults
  type: str
"""
