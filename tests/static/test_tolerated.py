"""Each task or block that tolerates a failure has a comment with the reason, and is counted here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from tests.static.messages import yaml_files
from tests.static.repository import REPOSITORY

TOLERATED = {
    "playbooks/verify.yml": {"ignore_unreachable": 1},
    "roles/postgresql_replication/tasks/collect_status.yml": {"rescue": 1},
    "roles/postgresql_replication/tasks/promote_plan.yml": {"rescue": 1},
    "roles/postgresql_replication/tasks/promote_run.yml": {"ignore_unreachable": 1},
    "roles/postgresql_replication/tasks/promote_stop.yml": {"ignore_unreachable": 4},
    "roles/provision/tasks/wait.yml": {"ignore_unreachable": 1},
    "roles/verify/tasks/database.yml": {"rescue": 2},
    "roles/verify/tasks/host.yml": {"rescue": 1},
    "roles/verify/tasks/main.yml": {"rescue": 1},
    "roles/verify/tasks/charts.yml": {"rescue": 1},
    "roles/verify/tasks/rancher.yml": {"rescue": 1},
    "roles/verify/tasks/server.yml": {"rescue": 1},
    "roles/verify/tasks/snapshots.yml": {"rescue": 1},
    "roles/verify/tasks/storage.yml": {"rescue": 1},
}
"""File → number of tolerated failures. Raise a number only where a later task verifies the result."""

IGNORES = {"ignore_errors", "ignore_unreachable"}
WITHOUT_EFFECT = {"meta", "debug", "set_fact"}
"""Modules that neither repair a failure nor fail: a rescue of these alone tolerates the failure."""
COMMENT = re.compile(r"(?:^|\s)# *\S")


def tolerated(text: str) -> Iterator[tuple[str, bool]]:
    """Each tolerated failure, and whether a comment gives the reason."""
    lines = text.splitlines()

    def has_reason(first: int, last: int) -> bool:
        above = lines[first - 1].strip() if first else ""
        return above.startswith("#") or any(COMMENT.search(line) for line in lines[first : last + 1])

    def walk(node: yaml.Node) -> Iterator[tuple[str, bool]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                first = key.start_mark.line
                if key.value in IGNORES and value.value not in {"false", "no"}:
                    yield key.value, has_reason(first, first)
                elif key.value == "rescue" and all(is_without_effect(task) for task in value.value):
                    yield key.value, has_reason(first, max(first, value.end_mark.line - 1))
                yield from walk(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item)

    yield from walk(yaml.compose(text, Loader=yaml.CSafeLoader))


def is_without_effect(task: yaml.MappingNode) -> bool:
    return bool({key.value.rpartition(".")[2] for key, _ in task.value} & WITHOUT_EFFECT)


FOUND = {
    str(path.relative_to(REPOSITORY)): list(tolerated(path.read_text()))
    for path in [REPOSITORY / "site.yml", *yaml_files("roles", "playbooks", "molecule")]
}


def test_every_tolerated_failure_is_counted() -> None:
    assert {path: dict(Counter(kind for kind, _ in found)) for path, found in FOUND.items() if found} == TOLERATED


def test_every_tolerated_failure_has_a_reason() -> None:
    assert [f"{path}: {kind}" for path, found in FOUND.items() for kind, reason in found if not reason] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- command: x\n  ignore_errors: true\n", [("ignore_errors", False)]),
        ("- command: x\n  ignore_unreachable: true # a later task waits\n", [("ignore_unreachable", True)]),
        ("- command: x\n  # a later task waits\n  ignore_unreachable: '{{ x }}'\n", [("ignore_unreachable", True)]),
        ("- command: x\n  ignore_errors: false\n", []),
        ("- block:\n    - command: x\n  rescue:\n    - ansible.builtin.meta: noop\n", [("rescue", False)]),
        ("- block:\n    - block: []\n      rescue: []\n", [("rescue", False)]),
        ("- block: []\n  rescue: # verified next\n    - debug:\n        msg: x\n- command: x\n", [("rescue", True)]),
        ("- block: []\n  rescue:\n    - debug:\n    - fail:\n", []),
    ],
)
def test_a_tolerated_failure_is_found(text: str, found: list[tuple[str, bool]]) -> None:
    assert list(tolerated(text)) == found
