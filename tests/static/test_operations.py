"""Operations: flags after a failed step, and the result of a dry run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.plugin_utils.options import IMPORT, playbook_options

from tests.static.repository import REPOSITORY, load, role_documents, role_names

FLAG = "slipway.platform.ceph_flag"
FOLDER = REPOSITORY / "playbooks/operations"
PLAYS = sorted(path for path in FOLDER.glob("*.yml") if not path.name.endswith(".meta.yml"))
OPERATIONS = [*PLAYS, *sorted(FOLDER.glob("tasks/*.yml"))]
STEPS = sorted(REPOSITORY.glob("roles/*/tasks/*.yml"))
LONGEST_PLAY_LINES = 60
PLAYBOOKS = sorted(
    path
    for folder in (REPOSITORY / "playbooks", REPOSITORY / "playbooks/tasks")
    for path in folder.glob("*.yml")
    if not path.name.endswith(".meta.yml")
)
SWITCHES: dict[str, set[str]] = {
    "ceph": set(),
    "rancher": set(),
    "postgresql": {"postgresql_allow_restart", "postgresql_backup_allow_initialize"},
    "rke2": set(),
}
"""Services wired in playbooks/<service>.yml and operations/vars/<service>.yml → inputs that operations do not set."""


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


@pytest.mark.parametrize("path", [*OPERATIONS, *STEPS], ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_flag_is_unset_when_a_step_fails(path: Path) -> None:
    assert flags_left(load(path)) == []


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: path.stem)
def test_a_dry_run_that_passes_ends_as_passed(path: Path) -> None:
    assert failing_dry_runs(load(path)) == []


@pytest.mark.parametrize("path", PLAYS, ids=lambda path: path.stem)
def test_a_play_leaves_its_steps_to_entry_points(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_PLAY_LINES


def private_variables(text: str) -> set[str]:
    """The roles whose private variables a play uses."""
    return {match[1] for match in re.finditer(rf"\b__({'|'.join(role_names())})_\w+", text)}


@pytest.mark.parametrize("path", [*OPERATIONS, *sorted(FOLDER.glob("vars/*.yml"))], ids=lambda path: path.stem)
def test_a_play_uses_no_private_variable_of_a_role(path: Path) -> None:
    assert private_variables(path.read_text()) == set()


def test_a_private_variable_is_found() -> None:
    assert private_variables("when: __ceph_plan.action == 'x' and __mine and ceph_version") == {"ceph"}


def entry_points(document: Any) -> Iterator[tuple[str, str]]:
    for task, _ in tasks_of(document):
        included = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
        if included and "{{" not in included.get("tasks_from", "main"):
            yield included["name"], included.get("tasks_from", "main")


@pytest.mark.parametrize("path", [*OPERATIONS, *PLAYBOOKS], ids=lambda path: path.stem)
def test_an_entry_point_has_a_specification(path: Path) -> None:
    specs = role_documents()
    assert [(role, entry) for role, entry in entry_points(load(path)) if entry not in specs[role]] == []


def service_specs(service: str) -> dict[str, dict[str, Any]]:
    """Roles of a service, named after it, with the specifications of their entry points."""
    return {role: specs for role, specs in role_documents().items() if f"{role}_".startswith(f"{service}_")}


def options_of(service: str) -> set[str]:
    specs = [spec for entries in service_specs(service).values() for spec in entries.values()]
    return {name for spec in specs for name in spec.get("options", {})}


@pytest.mark.parametrize("service", SWITCHES)
def test_a_result_that_a_play_uses_is_documented(service: str) -> None:
    """A fact of a role that a play reads is a result in the specification of an entry point."""
    specs = [spec for entries in service_specs(service).values() for spec in entries.values()]
    descriptions = [text for spec in specs for text in spec.get("description", ())]
    results = {name for text in descriptions for name in re.findall(rf"Result: the fact ({service}_\w+)", text)}
    texts = [path.read_text() for path in sorted(FOLDER.rglob("*.yml"))]
    used = {name for text in texts for name in re.findall(rf"(?<![\w/.])({service}_[a-z_]+)\b(?!\()", text)}
    groups = {"rke2_server", "rke2_agent"}
    names = {path.stem for path in FOLDER.rglob("*.yml")} | set(service_specs(service)) | groups
    assert used - options_of(service) - names <= results


@pytest.mark.parametrize("service", SWITCHES)
def test_the_wiring_of_operations_is_that_of_the_play(service: str) -> None:
    """An option that playbooks/<service>.yml wires too has the same value in every operation."""
    play = load(REPOSITORY / f"playbooks/{service}.yml")[0]
    wired = play.get("vars") or play["roles"][0]["vars"]
    operations = load(FOLDER / f"vars/{service}.yml")
    assert {name: value for name, value in operations.items() if name in wired} == {
        name: value for name, value in wired.items() if name in operations
    }
    assert set(wired) - set(operations) == SWITCHES[service]
    assert set(operations) | set(wired) <= options_of(service)


@pytest.mark.parametrize("path", PLAYS, ids=lambda path: path.stem)
def test_an_operation_validates_its_options_first(path: Path) -> None:
    first = load(path)[0]
    assert first["ansible.builtin.import_playbook"] == "../validate_options.yml"
    assert first["vars"] == {"operation": path.stem}
    assert "when" not in first and "tags" not in first


def options_used(playbook: Path) -> set[str]:
    """Options of operations in a playbook, in the files that it includes, and in the playbooks that it imports."""
    text = playbook.read_text()
    names = re.findall(r"(?:include_tasks: |vars_files: \[)([\w/.]+(?:, [\w/.]+)*)", text)
    files = [playbook.parent / name for group in names for name in group.split(", ")]
    used = {name for part in (text, *(path.read_text() for path in files)) for name in re.findall(r"\bop_\w+", part)}
    imported = [playbook.parent / play[IMPORT] for play in load(playbook) if IMPORT in play]
    return used.union(*map(options_used, imported))


@pytest.mark.parametrize("path", PLAYS, ids=lambda path: path.stem)
def test_the_options_of_an_operation_are_those_that_it_uses(path: Path) -> None:
    options = playbook_options(path)
    own = {name for name in options_used(path) if name.startswith(f"op_{path.stem}_")}
    assert own <= set(options), "used and not declared"
    assert set(options) <= options_used(path), "declared and not used"
    documents = load(path.with_suffix(".meta.yml"))["argument_specs"]
    assert list(documents) == [path.stem]


def test_a_flag_that_stays_set_is_found() -> None:
    held = {FLAG: {"name": "noout", "state": "set"}}
    unset = {FLAG: {"name": "noout", "state": "unset"}}
    assert flags_left([{"tasks": [held, unset]}]) == ["noout"]
    assert flags_left([{"tasks": [{"block": [held], "always": [{FLAG: {"name": "other", "state": "unset"}}]}]}]) == [
        "noout"
    ]
    assert flags_left([{"tasks": [{"block": [{"block": [held]}], "always": [unset]}]}]) == []
    assert flags_left([{"tasks": [{"block": [], "always": [held, unset]}]}]) == ["noout"]
