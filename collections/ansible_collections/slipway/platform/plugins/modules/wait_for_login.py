#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: wait_for_login
short_description: Wait until a host accepts an SSH login, and for the end of its first boot
description:
  - Retries errors that pass while a host boots. An error that does not pass (key rejected, host key changed, no
    address, no route, an unusable key file) ends the wait at once, with what to do about it.
  - Runs on the controller as an action and needs no Python on the host.
author: [Slipway]
options:
  timeout_seconds:
    description: Seconds until the host must accept the login, and again until its boot must have ended.
    type: int
    required: true
  cloud_init:
    description: Whether to wait for the end of cloud-init too, and to fail with its errors.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Only reads.}
  diff_mode: {support: none, description: Only reads.}
"""

EXAMPLES = r"""
- name: Wait for the machine
  slipway.platform.wait_for_login:
    timeout_seconds: 300
    cloud_init: true
  vars:
    ansible_ssh_timeout: 5
"""

RETURN = r"""
msg:
  description: The host, what is wrong, and what to do.
  returned: on failure
  type: str
"""
