"""Names of tasks, variables, functions and files use the words of .ansible-lint-rules/vocabulary.py."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from tests.static.repository import REPOSITORY

RULES = REPOSITORY / ".ansible-lint-rules"


def load_vocabulary() -> ModuleType:
    """The directory of the rules is not a package: ansible-lint imports its files by their names alone."""
    spec = importlib.util.spec_from_file_location("vocabulary", RULES / "vocabulary.py")
    assert spec and spec.loader
    module = sys.modules["vocabulary"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vocabulary = load_vocabulary()

DIRECTORIES = (
    ".ansible-lint-rules",
    "ci",
    "collections",
    "inventories",
    "lab",
    "molecule",
    "playbooks",
    "roles",
    "site.yml",
    "tests",
)
FIXTURES = "tests/ansible_lint/fixtures"
"""Contain faults on purpose."""

NOT_IN_TEXT = re.compile(r"\b(anew|aside|asks|believes?|judge[ds]?|says|told)\b")
"""Words that texts for users, comments and docstrings replace by those of the glossary."""
TEXTS = ("CONTRIBUTING.md", "README.md", "ci", "collections", "docs", "inventories", "playbooks", "roles")


@pytest.mark.parametrize("name", TEXTS)
def test_texts_use_the_vocabulary(name: str) -> None:
    path = REPOSITORY / name
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    faults = [
        f"{file.relative_to(REPOSITORY)}:{number}: {found[0]}"
        for file in files
        if "__pycache__" not in file.parts
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if (found := NOT_IN_TEXT.search(line))
    ]
    assert files and faults == []


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_names_use_the_vocabulary(directory: str) -> None:
    files = [
        file
        for file in vocabulary.files_below(REPOSITORY / directory)
        if not file.is_relative_to(REPOSITORY / FIXTURES)
    ]
    faults = [
        f"{file.relative_to(REPOSITORY)}:{fault.line}: {fault.rule}: {fault.message}"
        for file in files
        for fault in vocabulary.check_file(file)
    ]
    assert files and faults == []


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("roll | Drain the node", True),
        ("Back up the databases", True),
        ("Back the databases", False),
        ("{{ inventory_hostname }}", True),
        ("look | Look at the cluster", False),
        ("PostgreSQL", False),
    ],
)
def test_a_name_starts_with_a_verb(name: str, good: bool) -> None:
    assert (vocabulary.check_verb(name) is None) is good


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("Start it", False),
        ("Install what is missing", False),
        ("Create its subnet", False),
        ("Restart PostgreSQL and its pooler", True),
        ("Install this", False),
        ("Read this of the host", False),
        ("Read the results of this host", True),
        ("Verify that the cluster is healthy", True),
        ("Wait until that", False),
    ],
)
def test_a_name_has_a_noun_for_each_pronoun(name: str, good: bool) -> None:
    assert (vocabulary.check_pronoun(name) is None) is good


@pytest.mark.parametrize(
    ("identifier", "good"),
    [
        ("__ceph_voice", False),
        ("__ceph_admin_host", True),
        ("OF_A_FOUNDING", False),
        ("StrangerError", False),
        ("lookup", True),
        ("look_up", True),
        ("object_gateway", True),
        ("write_in_place", True),
        ("away", True),
        ("databases_place", False),
    ],
)
def test_an_identifier_has_no_replaced_word(identifier: str, good: bool) -> None:
    assert (vocabulary.check_identifier(identifier) is None) is good


def test_every_kind_of_file_is_read() -> None:
    tasks = "- name: Read the state\n  block:\n    - name: Read the node\n      command: x\n      register: __told\n"
    assert [fault.line for fault in vocabulary.check_yaml(tasks)] == [5]
    spec = "argument_specs:\n  main:\n    options:\n      a:\n        options:\n          voice: {type: str}\n"
    assert [fault.line for fault in vocabulary.check_yaml(spec)] == [6]
    assert [fault.line for fault in vocabulary.check_yaml("---\nfirst: 1\nway: 2\n")] == [3]
    assert vocabulary.check_yaml("way: 2\n", variables=False) == []
    python = "def f(voice):\n    told: int = 1\n    self.way = told\n"
    assert [fault.line for fault in vocabulary.check_python(python)] == [1, 2, 3]
