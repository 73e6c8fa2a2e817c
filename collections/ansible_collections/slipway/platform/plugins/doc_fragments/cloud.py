"""Documentation of the options that identify an environment's project."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_token:
    description: Token of the project; read permission is enough.
    type: str
    required: true
  api_endpoint:
    description: Address of the API, ending in C(/v1).
    type: str
    required: true
  environment:
    description: Name of the environment; value of its owner label, and the name of its network.
    type: str
    required: true
"""
