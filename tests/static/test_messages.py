"""Options, commands and files that a message names exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment.postgresql_settings import SETTINGS

from tests.static.messages import (
    files_named,
    messages,
    options_named,
    python_messages,
    yaml_expressions,
    yaml_files,
    yaml_messages,
)
from tests.static.repository import REPOSITORY, filters, load, role_names

PREFIXES = {*role_names(), "op", "platform", "object_storage"}
FILE_ROOTS = ("", "inventories/prod", "playbooks", "playbooks/operations")
MADE_LATER = {"group_vars/all/vault.yml", "vault.yml"}
"""Written by create_secrets.yml."""


def group_names(hosts: dict[str, Any]) -> set[str]:
    return {name for group in hosts.values() for name in (group or {}).get("children", {})}


def known_names() -> set[str]:
    names = set(filters())
    names |= group_names(load(REPOSITORY / "inventories/prod/hosts.yml"))
    specs = [load(REPOSITORY / "roles" / role / "meta/argument_specs.yml") for role in role_names()]
    for document in (*specs, load(REPOSITORY / "playbooks/check.meta.yml")):
        for entry_point in document["argument_specs"].values():
            names |= set(entry_point.get("options", {}))
    # Options of operations have no spec: they exist where a play or role reads them.
    for path in yaml_files("roles", "playbooks"):
        for expression in yaml_expressions(load(path)):
            names |= set(re.findall(r"\bop_\w+", expression))
    return names


KNOWN = known_names() | SETTINGS


def unknown_options(text: str) -> set[str]:
    return {
        name
        for name in options_named(text, PREFIXES)
        if name not in KNOWN
        and not (name.endswith("_*") and any(known.startswith(name.removesuffix("*")) for known in KNOWN))
    }


def missing_files(text: str) -> set[str]:
    return {
        name
        for name in files_named(text) - MADE_LATER
        if not any((REPOSITORY / root / name).is_file() for root in FILE_ROOTS)
    }


def test_every_option_named_in_a_message_exists() -> None:
    assert [(path, name) for path, text in messages() for name in sorted(unknown_options(text))] == []


def test_every_file_named_in_a_message_exists() -> None:
    assert [(path, name) for path, text in messages() for name in sorted(missing_files(text))] == []


def test_every_option_named_in_a_runbook_exists() -> None:
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs/runbooks").glob("*.md")]
    assert [(path.name, name) for path in documents for name in sorted(unknown_options(path.read_text()))] == []


@pytest.mark.parametrize(
    ("task", "faults"),
    [
        ({"ansible.builtin.fail": {"msg": "Set postgresql_nothing."}}, {"postgresql_nothing"}),
        ({"ansible.builtin.assert": {"fail_msg": "say -e op_nothing=true"}}, {"op_nothing"}),
        ({"ansible.builtin.debug": {"msg": ["Set platform_nothing to {{ x }}."]}}, {"platform_nothing"}),
        ({"msg": "{{ 'set ceph_nothing' if x else 'ceph_nowhere' }}"}, {"ceph_nothing", "ceph_nowhere"}),
        ({"set_fact": {"__ceph_fault": "{{ 'Set ceph_nothing.' if x }}"}}, {"ceph_nothing"}),
        ({"msg": "see docs/nothing.md and playbooks/nothing.yml"}, {"docs/nothing.md", "playbooks/nothing.yml"}),
        ({"msg": "in inventories/{{ x }}/group_vars/all/nothing.yml"}, {"group_vars/all/nothing.yml"}),
        ({"msg": "ceph_version, base_ssh_*, group rke2_server, {{ ceph_x }}, /x.yml, {{ x }}.yml, site.yml"}, set()),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_found(task: dict[str, Any], faults: set[str]) -> None:
    assert {name for text in yaml_messages(task) for name in unknown_options(text) | missing_files(text)} == faults


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ('"set ceph_nothing"', set()),
        ('fail("set ceph_nothing")', {"ceph_nothing"}),
        ('fail(f"ceph_nothing of {x} is {y}")', {"ceph_nothing"}),
        ('fail(f"playbooks/nothing.yml -i {x}, playbooks/{x}.yml, rke2_{x}, {x}_ceph")', {"playbooks/nothing.yml"}),
        ('fail("ceph_version " "or ceph_nothing")', {"ceph_nothing"}),
    ],
)
def test_a_name_that_does_not_exist_is_found_in_python(source: str, faults: set[str]) -> None:
    found = {name for text in python_messages(source) for name in unknown_options(text) | missing_files(text)}
    assert found == faults
