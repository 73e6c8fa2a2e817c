"""Operations: flags after a failed step, and the result of a dry run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.static.repository import REPOSITORY, load

FLAG = "slipway.platform.ceph_flag"
OPERATIONS = sorted((REPOSITORY / "playbooks/operations").rglob("*.yml"))


def tasks_of(node: Any, always: tuple[Any, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[Any, ...]]]:
    """Each task, with the tasks of the `always` parts around it."""
    for task in node or []:
        later = (*always, *task.get("always", []))
        yield task, always
        for part, covered in (("block", later), ("rescue", later), ("always", always)):
            yield from tasks_of(task.get(part), covered)
        for part in ("pre_tasks", "tasks", "post_tasks"):
            yield from tasks_of(task.get(part))


def flags_left(document: Any) -> list[str]:
    """Flags that are set where no `always` around the task unsets them."""
    return [
        task[FLAG]["name"]
        for task, always in tasks_of(document)
        if task.get(FLAG, {}).get("state") == "set"
        and {"name": task[FLAG]["name"], "state": "unset"}
        not in [{key: later.get(FLAG, {}).get(key) for key in ("name", "state")} for later in always]
    ]


def failing_dry_runs(document: Any) -> list[str]:
    """Tasks that fail in check mode only."""
    found = []
    for task, _ in tasks_of(document):
        when = task.get("when", [])
        conditions = [str(condition) for condition in (when if isinstance(when, list) else [when])]
        if "ansible.builtin.fail" in task and "ansible_check_mode" in conditions:
            found.append(task["name"])
    return found


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_a_flag_is_unset_when_a_step_fails(path: Path) -> None:
    assert flags_left(load(path)) == []


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_a_dry_run_that_passes_ends_as_passed(path: Path) -> None:
    assert failing_dry_runs(load(path)) == []


def test_a_flag_that_stays_set_is_found() -> None:
    held = {FLAG: {"name": "noout", "state": "set"}}
    unset = {FLAG: {"name": "noout", "state": "unset"}}
    assert flags_left([{"tasks": [held, unset]}]) == ["noout"]
    assert flags_left([{"tasks": [{"block": [held], "always": [{FLAG: {"name": "other", "state": "unset"}}]}]}]) == [
        "noout"
    ]
    assert flags_left([{"tasks": [{"block": [{"block": [held]}], "always": [unset]}]}]) == []
    assert flags_left([{"tasks": [{"block": [], "always": [held, unset]}]}]) == ["noout"]
