"""Contract of every role: one name, one argument spec, one scenario."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.static.repository import REPOSITORY, inventory_files, load, role_defaults, role_names, role_specs

ROLES = role_names()
SPECS = role_specs()
INTERNAL = {"certificate"}
"""Included by other roles, with whose scenarios they are tested on hosts: no playbook, scenario or tag of their own."""
PARTS = {
    "postgresql_backup": ("postgresql", "test_postgresql_backup.py"),
    "postgresql_replication": ("postgresql", "test_standby.py"),
}
"""Roles on the hosts of a service, by its playbook and tag. They have no scenario, but a test of the platform: backups
need a bucket, and replication a second host (docs/adr/0015-postgresql-roles.md)."""


def owner(variable: str) -> str | None:
    """The role whose prefix a variable has; the longest name counts."""
    owners = [role for role in ROLES if variable.startswith(f"{role}_")]
    return max(owners, key=len, default=None)


def play_wiring() -> dict[str, set[str]]:
    """Role → variables that playbooks set beside it."""
    wiring: dict[str, set[str]] = {role: set() for role in ROLES}
    for path in (REPOSITORY / "playbooks").rglob("*.yml"):
        if path.name.endswith(".meta.yml") or path.parent.name == "vars":
            continue
        for play in load(path) or []:
            for entry in play.get("roles", []) or []:
                if isinstance(entry, dict):
                    wiring[entry["role"]] |= set(entry.get("vars", {}))
            # Options among the variables of a play; an imported playbook's are for one operation.
            for name in play.get("vars", {}) if "hosts" in play else ():
                if (role := owner(name)) and name in SPECS[role]:
                    wiring[role].add(name)
    return wiring


@pytest.mark.parametrize("role", ROLES)
def test_spec_and_defaults_are_equal(role: str) -> None:
    documented = {name: option["default"] for name, option in SPECS[role].items() if "default" in option}
    assert documented == role_defaults(role)


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described_and_has_the_role_as_prefix(role: str) -> None:
    def walk(options: dict[str, Any], where: str) -> list[str]:
        faults = []
        for name, option in options.items():
            if not option.get("description"):
                faults.append(f"{where}{name} has no description")
            if "type" not in option:
                faults.append(f"{where}{name} has no type")
            if option.get("type") == "list" and "elements" not in option:
                faults.append(f"{where}{name} has no elements")
            if option.get("required") and "default" in option:
                faults.append(f"{where}{name} is required and has a default")
            faults += walk(option.get("options", {}), f"{where}{name}.")
        return faults

    faults = walk(SPECS[role], "")
    faults += [f"{name} lacks the prefix {role}_" for name in SPECS[role] if not name.startswith(f"{role}_")]
    assert faults == []


@pytest.mark.parametrize("role", ROLES)
def test_role_has_its_files(role: str) -> None:
    root = REPOSITORY / "roles" / role
    service = [
        REPOSITORY / "playbooks" / f"{role}.yml",
        REPOSITORY / "molecule" / role / "molecule.yml",
        REPOSITORY / "molecule" / role / "converge.yml",
        REPOSITORY / "molecule" / role / "tests" / f"test_{role}.py",
    ]
    internal = [REPOSITORY / "tests/unit" / role / f"test_{role}.py"]
    part = [
        path
        for name, test in [PARTS.get(role, ("", ""))]
        for path in (REPOSITORY / "playbooks" / f"{name}.yml", REPOSITORY / "tests/platform" / test)
    ]
    missing = [
        str(path.relative_to(REPOSITORY))
        for path in (
            root / "README.md",
            root / "tasks/main.yml",
            root / "meta/main.yml",
            *(internal if role in INTERNAL else part if role in PARTS else service),
        )
        if not path.exists()
    ]
    assert missing == []
    assert len((root / "README.md").read_text().splitlines()) <= 40
    assert not (load(root / "meta/main.yml") or {}).get("dependencies"), "a role depends on no other role"


@pytest.mark.parametrize("role", ROLES)
def test_role_refers_to_no_group_and_no_other_host(role: str) -> None:
    faults = []
    for path in (REPOSITORY / "roles" / role).rglob("*"):
        if path.suffix in {".yml", ".j2"} and path.parent.name != "meta":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(r"\bgroups\[|\bgroup_names\b|\bhostvars\[", line):
                    faults.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert faults == []


def test_no_orphan_variable_in_inventories() -> None:
    """A name with a role's prefix that no spec contains is a typo, which argument specs do not detect."""
    faults = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in inventory_files()
        for name in (load(path) or {})
        if (role := owner(name)) is not None and name not in SPECS[role]
    ]
    assert faults == []


def test_wired_or_tuned_but_never_both() -> None:
    """Variables beside a role in a play override the inventory silently, so an inventory must not set them."""
    wiring = play_wiring()
    tuned = {name for path in inventory_files() for name in (load(path) or {})}
    both = {role: sorted(names & tuned) for role, names in wiring.items() if names & tuned}
    assert both == {}


def test_wiring_names_real_options() -> None:
    wiring = play_wiring()
    unknown = {role: sorted(wiring[role] - set(SPECS[role])) for role in ROLES if wiring[role] - set(SPECS[role])}
    assert unknown == {}


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in load(path) if isinstance(play, dict) and "hosts" in play]


def roles_of(play: dict[str, Any]) -> set[str]:
    """Roles that a play runs, by its list of roles or by tasks."""
    tasks = [task for name in ("pre_tasks", "tasks", "post_tasks") for task in play.get(name, [])]
    included = [
        task.get(f"ansible.builtin.{verb}_role", {}).get("name") for task in tasks for verb in ("include", "import")
    ]
    return {entry["role"] for entry in play.get("roles", [])} | {name for name in included if name}


def tagged_below(node: Any) -> bool:
    if isinstance(node, dict):
        return "tags" in node or any(tagged_below(value) for value in node.values())
    return isinstance(node, list) and any(tagged_below(item) for item in node)


SERVICES = [REPOSITORY / entry["ansible.builtin.import_playbook"] for entry in load(REPOSITORY / "site.yml")]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_a_tag_selects_the_plays_of_its_playbook_and_role(path: Path) -> None:
    """`--tags rke2` runs all of playbooks/rke2.yml, gathering of facts included, and no task of another playbook.

    A play passes its tags to all its tasks, included files too; a tag on a task would select a part of a play.
    """
    for play in plays(path):
        assert set(play.get("tags", [])) == {path.stem} | roles_of(play), play["name"]
        assert not any(tagged_below(value) for value in play.values()), play["name"]


def test_every_role_can_be_selected() -> None:
    assert {path.stem for path in SERVICES} >= set(ROLES) - INTERNAL - set(PARTS)
    for role, (service, _) in PARTS.items():
        included = roles_included([load(path) for path in included_files(REPOSITORY / "playbooks" / f"{service}.yml")])
        assert role in included, f"playbooks/{service}.yml does not run {role}"


def included_files(playbook: Path) -> list[Path]:
    """Files of tasks that the plays of a playbook include."""
    tasks = [task for play in plays(playbook) for task in play.get("tasks", [])]
    names = {task["ansible.builtin.include_tasks"] for task in tasks if "ansible.builtin.include_tasks" in task}
    return [playbook.parent / name for name in sorted(names)]


def roles_included(node: Any) -> set[str]:
    """Roles that tasks include or import, at any depth."""
    if isinstance(node, list):
        return set().union(*map(roles_included, node))
    if not isinstance(node, dict):
        return set()
    names = {node.get(f"ansible.builtin.{verb}_role", {}).get("name") for verb in ("include", "import")}
    return set().union(names - {None}, *map(roles_included, node.values()))


def test_roles_include_internal_roles_alone() -> None:
    """A service knows no other service; an internal role is used by roles, not by plays, and by one at least."""
    tasks = {role: (REPOSITORY / "roles" / role / "tasks").glob("*.yml") for role in ROLES}
    by_roles = {role: roles_included([load(path) for path in paths]) for role, paths in tasks.items()}
    assert set().union(*by_roles.values()) == INTERNAL
    assert not any(by_roles[role] for role in INTERNAL)
    by_plays = [play for path in (REPOSITORY / "playbooks").rglob("*.yml") for play in plays(path)]
    assert not set().union(*map(roles_of, by_plays)) & INTERNAL


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sets_no_tags(role: str) -> None:
    files = (REPOSITORY / "roles" / role / "tasks").glob("*.yml")
    assert [path.name for path in files if tagged_below(load(path))] == []
