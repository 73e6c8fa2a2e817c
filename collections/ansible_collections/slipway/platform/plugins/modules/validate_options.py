#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_options
short_description: Validate the options of an operation before anything happens
description:
  - Reads the options (C(op_*)) that the argument specs of a playbook declare, in the C(.meta.yml) beside it and beside
    every playbook that it imports, and fails on an unknown, missing or invalid one, with all faults at once.
  - Runs on the controller as an action, because only there the names of all variables are known.
author: [Slipway]
options:
  playbook:
    description: The playbook; C(<playbook>.meta.yml) beside it declares its options.
    type: path
    required: true
  hosts:
    description:
      - Hosts within C(--limit); fails when the limit leaves out a host of a group on which a play of the playbook
        works, or C(localhost) where one works on it. Servers of the group C(postgresql) are independent of each other.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full, description: Only reads.}
  diff_mode: {support: none, description: Only reads.}
"""

EXAMPLES = r"""
- name: Validate the options
  slipway.platform.validate_options:
    playbook: "{{ playbook_dir }}/operations/drain_ceph_host.yml"
    hosts: "{{ ansible_play_hosts_all }}"
"""

RETURN = r"""
msg:
  description: Every fault, one a line.
  returned: when there are faults
  type: str
"""
