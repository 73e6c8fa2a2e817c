#!/usr/bin/python
"""Ansible module: compare a PostgreSQL server with its declared databases, roles and grants."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_state
short_description: Compare a PostgreSQL server with its declared databases, roles and grants
description:
  - Reads the state of the server and of its databases by one connection to each, and plans what has to be created or
    changed. It changes nothing.
  - Passwords are compared by digests of their SCRAM verifiers, so that neither is passed to the module.
options:
  server_query:
    description: Query that returns the state of the server as JSON.
    type: str
    required: true
  database_query:
    description: Query that returns the state of the connected database as JSON.
    type: str
    required: true
  standby:
    description: Whether the server is a standby. Its databases and roles are those of the primary, and not compared.
    type: bool
    default: false
  databases:
    description: Declared databases, as the option C(postgresql_databases) of the role postgresql.
    type: list
    elements: dict
    default: []
  roles:
    description: Declared login roles, as the option C(postgresql_roles) of the role postgresql.
    type: list
    elements: dict
    default: []
  verifier_digests:
    description: SHA-256 of the SCRAM verifier of each role with a password. With V(standby) there are standbys.
    type: dict
    default: {}
  lookup_digest:
    description: Digest of PgBouncer's function.
    type: str
    default: ""
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reads only.}
  diff_mode: {support: none, description: Reads only.}
"""

EXAMPLES = r"""
- name: Compare the server with its declaration
  slipway.platform.postgresql_state:
    server_query: "{{ lookup('ansible.builtin.file', 'sql/state.sql') }}"
    database_query: "{{ lookup('ansible.builtin.file', 'sql/database_state.sql') }}"
    databases: [{name: shop}]
    roles: [{name: shop, database: shop}]
    verifier_digests: {shop: "{{ verifier | hash('sha256') }}"}
  register: server
"""

RETURN = r"""
state:
  description: State of the server, the result of O(server_query).
  returned: success
  type: dict
drift:
  description: >-
    What is declared and missing or different, by kind (roles, databases, memberships, extensions, grants, lookup), each
    in the order in which it has to be applied; and the names of roles and databases that do not exist yet (missing).
  returned: success
  type: dict
undeclared:
  description: Databases and roles that are not declared. They are never dropped.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.postgresql import (
    PostgresqlError,
    catalogue_drift,
    undeclared,
)
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_state import Run, read


def result(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """The state of the server, and what is different from the declaration."""
    databases, roles = given["databases"], given["roles"]
    names = [] if given["standby"] else ["postgres", *(database["name"] for database in databases)]
    state, database_states = read(run, given["server_query"], given["database_query"], names)
    if given["standby"]:
        return {"state": state, "drift": {}, "undeclared": undeclared(state, databases, roles, standby=True)}
    digests = given["verifier_digests"]
    return {
        "state": state,
        "drift": catalogue_drift(databases, state, database_states, roles, digests, given["lookup_digest"]),
        "undeclared": undeclared(state, databases, roles, "standby" in digests),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server_query": {"type": "str", "required": True},
            "database_query": {"type": "str", "required": True},
            "standby": {"type": "bool", "default": False},
            "databases": {"type": "list", "elements": "dict", "default": []},
            "roles": {"type": "list", "elements": "dict", "default": []},
            "verifier_digests": {"type": "dict", "default": {}},
            "lookup_digest": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )

    def run(command: Sequence[str], text: str) -> tuple[int, str, str]:
        code, output, errors = module.run_command([*command], data=text, cwd="/")
        return int(code), str(output), str(errors)

    try:
        module.exit_json(changed=False, **result(run, module.params))
    except PostgresqlError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
