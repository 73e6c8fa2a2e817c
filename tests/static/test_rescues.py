"""With any_errors_fatal a rescue runs on every host, also where no task failed and no `ansible_failed_*` is defined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.static.messages import yaml_files
from tests.static.repository import REPOSITORY, load

GUARDS = ("ansible_failed_result is defined", " is failed")


def rescued(node: Any) -> Iterator[dict[str, Any]]:
    """Each task of a rescue."""
    if isinstance(node, list):
        for item in node:
            yield from rescued(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "rescue":
                yield from value
            if isinstance(value, list):
                yield from rescued(value)


def unguarded(document: Any) -> list[str]:
    """Names of the tasks that a host without a failure would run too."""

    def guarded(task: dict[str, Any]) -> bool:
        conditions = task.get("when", [])
        text = conditions if isinstance(conditions, str) else " ".join(map(str, conditions))
        return any(guard in text for guard in GUARDS)

    return [task["name"] for task in rescued(document) if "ansible.builtin.meta" not in task and not guarded(task)]


def test_a_rescue_changes_and_reports_only_hosts_that_failed() -> None:
    found = {
        str(path.relative_to(REPOSITORY)): names
        for path in yaml_files("roles", "playbooks")
        if (names := unguarded(load(path)))
    }
    assert found == {}


def test_an_unguarded_task_is_found() -> None:
    fail = {"name": "Fail", "ansible.builtin.fail": {}}
    block = {"name": "Block", "block": [{"block": [], "rescue": [fail, fail | {"when": GUARDS[0]}]}]}
    assert unguarded([block]) == ["Fail"]
