"""Lookup: a new key pair of age."""

from __future__ import annotations

DOCUMENTATION = r"""
name: age_identity
author: [Slipway]
short_description: Generate a key pair of age
description:
  - Returns another pair at each evaluation, as a dict of C(identity), the private key, and C(public_key).
  - Needs the Python package pyrage on the controller.
options:
  _terms:
    description: None.
    required: false
"""

EXAMPLES = r"""
- name: Generate a key pair
  ansible.builtin.set_fact:
    pair: "{{ lookup('slipway.platform.age_identity') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The pair.
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        from pyrage import x25519  # compiled, and used by one operation

        identity = x25519.Identity.generate()
        return [{"identity": str(identity), "public_key": str(identity.to_public())}]
