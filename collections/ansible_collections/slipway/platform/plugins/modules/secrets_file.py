#!/usr/bin/python
from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_file
short_description: Generate the missing secrets of an environment
description:
  - Generates tokens, access keys, passwords and the certificate authority that the file does not hold, and keeps
    everything else in it. The file is replaced at once, readable by its owner only.
  - Runs on the controller as an action, because only there the vault passwords of the run are known.
author: [Slipway]
options:
  path:
    description: File with the secrets, encrypted by Ansible Vault or plain; it may be absent.
    type: path
    required: true
  authority:
    description: Common name of the certificate authority.
    type: str
    required: true
  escrow_path:
    description: >-
      File to write the private key of the escrow (age) to, if the secrets have no public key of one. It is not
      overwritten.
    type: path
    required: true
  tokens:
    description: Variables with one secret each, of 64 letters and digits.
    type: list
    elements: str
    default: []
  access_keys:
    description: Variables with an S3 access key each, of 20 upper-case letters and digits.
    type: list
    elements: str
    default: []
  passwords:
    description: Variables with a dictionary of secrets each, and the keys in it.
    type: dict
    default: {}
  encrypted:
    description: Whether the file is encrypted with a vault password of the run. Without one nothing is generated.
    type: bool
    default: true
attributes:
  check_mode: {support: full, description: Reports what is missing.}
  diff_mode: {support: none, description: The content is secret.}
"""

EXAMPLES = r"""
- name: Generate the missing secrets
  slipway.platform.secrets_file:
    path: inventories/prod/group_vars/all/vault.yml
    authority: Slipway prod CA
    escrow_path: /media/escrow/prod-identity.txt
    tokens: [rke2_token]
    passwords:
      postgresql_role_passwords: [app, report]
"""

RETURN = r"""
missing:
  description: Names of the variables that were generated or completed, or would be.
  returned: always
  type: list
  elements: str
"""
