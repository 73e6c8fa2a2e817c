#!/usr/bin/python
"""Ansible module: create the runners of an environment at a GitLab server, and delete stale ones."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gitlab_runners
short_description: Create the runners of an environment at a GitLab server, and delete stale ones
description:
  - Creates every runner that is not stored or whose stored token is no longer valid. GitLab returns a token once, so
    the caller has to store the result.
  - A runner with the description of a declared one that is not the stored one was left by an interrupted run; it is
    deleted.
  - Supports check mode.
options:
  url:
    description: Address of the server.
    type: str
    required: true
  ca_certificate:
    description: Authority of its certificate, in PEM form; empty for the authorities that the system trusts.
    type: str
    default: ""
  api_token:
    description: Access token with the scopes create_runner, manage_runner and read_api.
    type: str
    required: true
  server_version:
    description: Version that the server has to have, in its first two numbers.
    type: str
    required: true
  type:
    description: Who may use the runners.
    type: str
    choices: [instance, group, project]
    required: true
  owner_id:
    description: Number of the group or project.
    type: int
  runners:
    description: The runners.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {type: str, required: true, description: Name of the runner in O(stored).}
      description: {type: str, required: true, description: Description that identifies it at the server.}
      state: {type: str, choices: [present, absent], default: present, description: Whether it should exist.}
      settings: {type: dict, default: {}, description: Settings as the API names them.}
  stored:
    description: Number (id) and token of each stored runner, by name.
    type: dict
    default: {}
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reports what would change.}
  diff_mode: {support: none, description: The registrations are secrets.}
"""

EXAMPLES = r"""
- name: Create the runners
  slipway.platform.gitlab_runners:
    url: https://gitlab.example.com
    api_token: "{{ lookup('ansible.builtin.env', 'GITLAB_TOKEN') }}"
    server_version: 19.3.1
    type: instance
    runners:
      - name: build
        description: slipway prod build
        settings: {tag_list: [build]}
  no_log: true
"""

RETURN = r"""
actions:
  description: What was done, or would be, with the reason.
  type: list
  returned: always
registrations:
  description: Number and token of each runner, by name. Secret.
  type: dict
  returned: always
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.gitlab_runners import (
    GitlabError,
    Registration,
    Wanted,
    apply,
    details,
    listed,
    plan,
    require,
    token_valid,
)

SECONDS = 30
LISTS = {"instance": "runners/all", "group": "groups/{}/runners", "project": "projects/{}/runners"}


class RealServer:
    def __init__(self, url: str, token: str, authority: str) -> None:
        self._base = f"{url.rstrip('/')}/api/v4"
        self._token = token
        self._context = ssl.create_default_context()
        if authority:
            self._context.load_verify_locations(cadata=authority)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}/{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("PRIVATE-TOKEN", self._token)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=self._context) as answer:
                return answer.status, _content(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _content(error.read())
        except OSError as error:
            raise GitlabError(
                f"GitLab: {self._base} does not answer: {error}. Check the address and the server."
            ) from error


def _content(data: bytes) -> Any:
    try:
        return json.loads(data or b"null")
    except ValueError:
        return data.decode(errors="replace")[:200]


def _owner(kind: str, id: int | None) -> dict[str, Any]:
    owner: dict[str, Any] = {"runner_type": f"{kind}_type"}
    return owner if kind == "instance" else {**owner, f"{kind}_id": id}


def main() -> None:
    runner = {
        "name": {"type": "str", "required": True},
        "description": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "settings": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "ca_certificate": {"type": "str", "default": ""},
            "api_token": {"type": "str", "required": True, "no_log": True},
            "server_version": {"type": "str", "required": True},
            "type": {"type": "str", "choices": ["instance", "group", "project"], "required": True},
            "owner_id": {"type": "int"},
            "runners": {"type": "list", "elements": "dict", "options": runner, "required": True},
            # Not no_log, which would replace the values in the result too: the task has it.
            "stored": {"type": "dict", "default": {}, "no_log": False},
        },
        required_if=[("type", "group", ["owner_id"]), ("type", "project", ["owner_id"])],
        supports_check_mode=True,
    )
    given = module.params
    server = RealServer(given["url"], given["api_token"], given["ca_certificate"])
    stored = {
        name: Registration(int(row["id"]), str(row["token"]))
        for name, row in given["stored"].items()
        if row.get("token")
    }
    every = {row["name"]: Wanted(row["name"], row["description"], row["settings"]) for row in given["runners"]}
    removed = [every[row["name"]] for row in given["runners"] if row["state"] == "absent"]
    wanted = [runner for runner in every.values() if runner not in removed]
    try:
        version = str(require(server, "GET", "version")["version"])
        if version.split(".")[:2] != given["server_version"].split(".")[:2]:
            raise GitlabError(
                f"gitlab_runner_server_version: is {given['server_version']}, but the server has version {version}. "
                "Correct the option."
            )
        known = {name: row for name in every if name in stored and (row := details(server, stored[name].id))}
        valid = {name: token_valid(server, stored[name]) for name in known}
        rows = listed(server, LISTS[given["type"]].format(given["owner_id"]))
        actions = plan(wanted, removed, stored, rows, known, valid)
        created = {} if module.check_mode else apply(actions, every, server, _owner(given["type"], given["owner_id"]))
    except GitlabError as error:
        module.fail_json(msg=str(error))
    kept = {name: row for name, row in (stored | created).items() if every.get(name) not in removed}
    module.exit_json(
        changed=bool(actions) or set(kept) != set(stored),
        actions=[
            f"{action.kind} {action.name}{f' {action.id}' if action.id else ''}: {action.reason}" for action in actions
        ],
        registrations={name: {"id": row.id, "token": row.token} for name, row in kept.items()},
    )


if __name__ == "__main__":
    main()
