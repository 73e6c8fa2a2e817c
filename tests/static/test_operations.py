"""Operations: flags after a failed step, and the result of a dry run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.static.repository import REPOSITORY, load, role_names

FLAG = "slipway.platform.ceph_flag"
FOLDER = REPOSITORY / "playbooks/operations"
OPERATIONS = sorted(path for path in FOLDER.rglob("*.yml") if path.parent.name != "vars")
LONGEST_PLAY_LINES = 60
LONGER_PLAYS = {
    "create_secrets": 143,
    "destroy": 125,
    "drain_ceph_host": 83,
    "replace_ceph_host": 115,
    "replace_ceph_osd": 145,
    "rotate_ceph_keys": 85,
    "upgrade_ceph": 137,
}
"""Plays whose steps are still in the play, with their number of lines at most; a number only becomes smaller."""
PRIVATE_USERS = {
    "drain_ceph_host": {"ceph"},
    "replace_ceph_host": {"ceph"},
    "replace_ceph_osd": {"ceph"},
    "rotate_ceph_keys": {"ceph"},
    "upgrade_ceph": {"ceph"},
}
"""Plays that still use private variables of these roles."""
WIRING = FOLDER / "vars/postgresql.yml"


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


PLAYS = sorted(FOLDER.glob("*.yml"))


@pytest.mark.parametrize("path", PLAYS, ids=lambda path: path.stem)
def test_a_play_leaves_its_steps_to_entry_points(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGER_PLAYS.get(path.stem, LONGEST_PLAY_LINES)


def private_variables(text: str) -> set[str]:
    """The roles whose private variables a play uses."""
    return {match[1] for match in re.finditer(rf"\b__({'|'.join(role_names())})_\w+", text)}


@pytest.mark.parametrize("path", [*OPERATIONS, *sorted(FOLDER.glob("vars/*.yml"))], ids=lambda path: path.stem)
def test_a_play_uses_no_private_variable_of_a_role(path: Path) -> None:
    assert private_variables(path.read_text()) <= PRIVATE_USERS.get(path.stem, set())


def test_a_private_variable_is_found() -> None:
    assert private_variables("when: __ceph_plan.action == 'x' and __mine and ceph_version") == {"ceph"}


def entry_points(document: Any) -> Iterator[tuple[str, str]]:
    for task, _ in tasks_of(document):
        included = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
        if included and "{{" not in included.get("tasks_from", "main"):
            yield included["name"], included.get("tasks_from", "main")


DATABASE_ROLES = ("postgresql", "postgresql_backup", "postgresql_replication")
DATABASE_PLAYS = [
    *OPERATIONS,
    *(REPOSITORY / "playbooks" / name for name in ("postgresql.yml", "tasks/run_postgresql.yml")),
]


def database_specs() -> dict[str, dict[str, Any]]:
    """Role → its entry points."""
    return {
        role: load(REPOSITORY / f"roles/{role}/meta/argument_specs.yml")["argument_specs"] for role in DATABASE_ROLES
    }


@pytest.mark.parametrize("path", DATABASE_PLAYS, ids=lambda path: path.stem)
def test_an_entry_point_of_postgresql_has_a_specification(path: Path) -> None:
    specs = database_specs()
    assert [entry for entry in entry_points(load(path)) if entry[0] in specs and entry[1] not in specs[entry[0]]] == []


def test_a_result_that_a_play_uses_is_documented() -> None:
    """A fact of a role of the database that a play reads is a result in the specification of an entry point."""
    specs = [spec for entries in database_specs().values() for spec in entries.values()]
    options = {name for spec in specs for name in spec.get("options", {})}
    descriptions = [text for spec in specs for text in spec.get("description", ())]
    results = {name for text in descriptions for name in re.findall(r"Result: the fact (postgresql_\w+)", text)}
    texts = [path.read_text() for path in sorted(FOLDER.rglob("*.yml"))]
    used = {name for text in texts for name in re.findall(r"(?<![\w/.])(postgresql_[a-z_]+)\b(?!\()", text)}
    names = {path.stem for path in FOLDER.rglob("*.yml")}
    assert used - options - names - set(DATABASE_ROLES) <= results


def test_the_wiring_of_operations_is_that_of_the_play() -> None:
    """An option that playbooks/postgresql.yml wires too has the same value in every operation."""
    (play,) = load(REPOSITORY / "playbooks/postgresql.yml")
    wired, operations = play["vars"], load(WIRING)
    assert {name: value for name, value in operations.items() if name in wired} == {
        name: value for name, value in wired.items() if name in operations
    }
    assert set(wired) - set(operations) == {"postgresql_allow_restart", "postgresql_backup_allow_initialize"}
    specs = [spec for entries in database_specs().values() for spec in entries.values()]
    assert set(operations) | set(wired) <= {name for spec in specs for name in spec.get("options", {})}


def test_a_flag_that_stays_set_is_found() -> None:
    held = {FLAG: {"name": "noout", "state": "set"}}
    unset = {FLAG: {"name": "noout", "state": "unset"}}
    assert flags_left([{"tasks": [held, unset]}]) == ["noout"]
    assert flags_left([{"tasks": [{"block": [held], "always": [{FLAG: {"name": "other", "state": "unset"}}]}]}]) == [
        "noout"
    ]
    assert flags_left([{"tasks": [{"block": [{"block": [held]}], "always": [unset]}]}]) == []
    assert flags_left([{"tasks": [{"block": [], "always": [held, unset]}]}]) == ["noout"]
