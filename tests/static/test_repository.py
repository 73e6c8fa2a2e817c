"""Layout, pins, links and secrets of the repository."""

from __future__ import annotations

import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.static.repository import REPOSITORY, filters, inventory_files, load

OPERATIONS = sorted(
    path.stem for path in (REPOSITORY / "playbooks/operations").glob("*.yml") if not path.name.endswith(".meta.yml")
)
ENVIRONMENTS = ("dev", "stage", "prod", "lab")


SHIPPED = Path(str(distribution("ansible").locate_file("ansible_collections")))
"""Where the locked `ansible` package keeps the collections."""


def test_requirements_agree_with_the_locked_package() -> None:
    pinned = {entry["name"]: entry["version"] for entry in load(REPOSITORY / "requirements.yml")["collections"]}
    shipped = {
        name: load(SHIPPED.joinpath(*name.split("."), "MANIFEST.json"))["collection_info"]["version"] for name in pinned
    }
    assert pinned == shipped


def test_every_license_is_that_of_the_repository() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    licenses = {project["license"]}
    licenses |= set(load(REPOSITORY / "collections/ansible_collections/slipway/platform/galaxy.yml")["license"])
    licenses |= {load(path)["galaxy_info"]["license"] for path in REPOSITORY.glob("roles/*/meta/main.yml")}
    assert licenses == {(REPOSITORY / "LICENSE").read_text().split()[0]}


def test_every_collection_used_is_required() -> None:
    pinned = {entry["name"] for entry in load(REPOSITORY / "requirements.yml")["collections"]}
    used = set()
    for folder in ("roles", "playbooks", "inventories", "molecule"):
        for path in (REPOSITORY / folder).rglob("*.yml"):
            used |= set(re.findall(r"^\s*(?:- )?([a-z]+\.[a-z]+)\.[a-z_0-9]+:", path.read_text(), re.M))
    collections = {name for name in used if SHIPPED.joinpath(*name.split(".")).is_dir()}
    assert collections
    assert collections <= pinned


@pytest.mark.parametrize("verb", OPERATIONS)
def test_every_operation_has_a_runbook(verb: str) -> None:
    assert (REPOSITORY / "docs/runbooks" / f"{verb}.md").is_file()


def test_every_runbook_has_an_operation() -> None:
    assert {path.stem for path in (REPOSITORY / "docs/runbooks").glob("*.md")} <= set(OPERATIONS)


def test_links_in_documents_resolve() -> None:
    broken = []
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("roles/*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def test_every_filter_has_a_docstring() -> None:
    """The function documents a filter (docs/adr/0013-filters-documented-in-python.md)."""
    functions = filters()
    assert functions and [name for name, function in functions.items() if not inspect.getdoc(function)] == []


def test_production_has_no_branch_for_the_lab() -> None:
    """The lab differs by inventories/lab alone; no role, playbook or other inventory may contain a branch for it."""
    pattern = re.compile(r"\blab\b|rke2sim", re.I)
    faults = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for folder in ("roles", "playbooks", "inventories/dev", "inventories/stage", "inventories/prod")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert faults == []


def test_no_literal_secret_in_inventories() -> None:
    """Values under secret names are vaulted, looked up or absent."""
    faults = []
    for path in inventory_files():
        for name, value in (load(path) or {}).items():
            secret = re.search(r"(passwords?|passphrase|token|secret|secret_key|private_key)$", name)
            if secret and isinstance(value, str) and value and "{{" not in value and not value.startswith("!vault"):
                faults.append(f"{path.relative_to(REPOSITORY)}: {name}")
    assert faults == []


def test_no_fault_is_suppressed_or_postponed() -> None:
    pattern = re.compile(r"failed_when: *false|# *noqa|\bTODO\b|\bFIXME\b")
    here = Path(__file__).resolve()
    files = subprocess.run(
        ["git", "ls-files", "roles", "playbooks", "collections", "lab", "tests", "molecule"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    faults = [
        f"{name}:{number}"
        for name in files
        if (path := REPOSITORY / name).resolve() != here and path.suffix in {".py", ".yml", ".j2", ".sh"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert faults == []


def test_no_filter_loses_the_order_of_a_list() -> None:
    """These filters make a set, whose order is another one in each run; select('in', …) and reject('in', …) keep it."""
    pattern = re.compile(r"\| *(?:difference|intersect|union|symmetric_difference)\b")
    files = [path for folder in ("roles", "playbooks", "inventories") for path in (REPOSITORY / folder).rglob("*")]
    faults = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in files
        if path.suffix in {".yml", ".j2"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert faults == []


def _strings(node: Any) -> Iterator[list[Any]]:
    """Every list in a YAML document, such as the argv of a task."""
    if isinstance(node, list):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _strings(child)


SHELL_SCRIPT = re.compile(r"(?:^|[/\s'\"])(?:ba|da)?sh['\",\s]+-[a-z]*c\b")
FILE_LOOKUP = re.compile(r"\{\{ lookup\('ansible\.builtin\.file', '[^']+'\) \}\}")


def templated_shell(document: Any) -> list[str]:
    """Shell scripts in tasks whose text is templated; values must be arguments of the script."""
    faults = []
    for words in _strings(document):
        for at, (word, following) in enumerate(pairwise(words)):
            if str(word).rsplit("/")[-1] in ("sh", "bash", "dash") and re.fullmatch("-[a-z]*c", str(following)):
                script = str(words[at + 2])
                if "{{" in script and not FILE_LOOKUP.fullmatch(script):
                    faults.append(script)
        for task in words:
            if isinstance(task, dict):
                for name, value in task.items():
                    text = value.get("cmd", value.get("argv", "")) if isinstance(value, dict) else value
                    if name in ("ansible.builtin.shell", "shell") or (
                        name.endswith("command") and isinstance(text, str) and SHELL_SCRIPT.search(text)
                    ):
                        faults += [str(text)] if "{{" in str(text) else []
    return faults


@pytest.mark.parametrize(
    ("task", "good"),
    [
        ("ansible.builtin.command: {argv: [sh, -c, 'du {{ folder }}']}", False),
        ("ansible.builtin.command: {argv: [runuser, --, /bin/bash, -ec, '{{ script }}']}", False),
        ("ansible.builtin.command: {cmd: \"sh -c 'du {{ folder }}'\"}", False),
        ("ansible.builtin.command: {argv: \"{{ ['sh', '-c', 'du ' ~ folder] }}\"}", False),
        ("ansible.builtin.shell: du {{ folder }}", False),
        ("ansible.builtin.command: {argv: [sh, -c, 'du \"$1\"', sh, '{{ folder }}']}", True),
        ("command: {argv: [sh, -c, \"{{ lookup('ansible.builtin.file', 'x.sh') }}\", sh, '{{ folder }}']}", True),
        ("ansible.builtin.command: {cmd: 'mv {{ folder }} x'}", True),
    ],
)
def test_a_templated_shell_script_is_found(task: str, good: bool) -> None:
    assert (templated_shell(yaml.safe_load(f"- {task}")) == []) is good


def test_no_shell_script_in_a_task_is_templated() -> None:
    files = [
        path
        for folder in ("roles", "playbooks")
        for path in sorted((REPOSITORY / folder).rglob("*.yml"))
        if folder == "playbooks" or path.parent.name in ("tasks", "handlers", "vars")
    ]
    faults = [f"{path.relative_to(REPOSITORY)}: {script}" for path in files for script in templated_shell(load(path))]
    assert len(files) > 100 and faults == []


def ended_by_unreachable(node: Any, fatal: bool) -> list[str]:
    """Tasks with ignore_unreachable that end the play because of any_errors_fatal, their own or inherited."""
    if isinstance(node, list):
        return [fault for child in node for fault in ended_by_unreachable(child, fatal)]
    if not isinstance(node, dict):
        return []
    fatal = node.get("any_errors_fatal", fatal)
    inner = [node[key] for key in ("pre_tasks", "tasks", "post_tasks", "block", "rescue", "always") if key in node]
    faults = [fault for child in inner for fault in ended_by_unreachable(child, fatal)]
    return faults + ([str(node.get("name"))] if node.get("ignore_unreachable") and fatal and not inner else [])


def test_a_task_that_ignores_an_unreachable_host_does_not_end_the_play() -> None:
    faults = []
    for path in sorted([*(REPOSITORY / "roles").glob("*/tasks/*.yml"), *(REPOSITORY / "playbooks").rglob("*.yml")]):
        # The play that includes a file of tasks may set any_errors_fatal.
        faults += [f"{path.name}: {name}" for name in ended_by_unreachable(load(path), path.parent.name == "tasks")]
    assert faults == []
    assert ended_by_unreachable(
        [{"any_errors_fatal": True, "tasks": [{"name": "a", "ignore_unreachable": True}]}], False
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_have_the_same_files(environment: str) -> None:
    """Environments differ in values, not in files."""
    root = REPOSITORY / "inventories" / environment
    shape = {str(path.relative_to(root)) for path in root.rglob("*.yml") if ".state" not in path.parts}
    prod = REPOSITORY / "inventories/prod"
    expected = {str(path.relative_to(prod)) for path in prod.rglob("*.yml") if ".state" not in path.parts}
    lab_files = {"group_vars/all/lab.yml", "group_vars/all/secrets.yml", "group_vars/object_storage.yml"}
    additions = lab_files if environment == "lab" else set()
    shape.discard("group_vars/all/vault.yml")
    expected.discard("group_vars/all/vault.yml")
    assert shape ^ expected == additions


def test_the_environments_share_their_defaults() -> None:
    """Declared once, and described with the same values for `check`."""
    defaults = REPOSITORY / "inventories/defaults.yml"
    for environment in ENVIRONMENTS:
        path = REPOSITORY / "inventories" / environment / "group_vars/all/defaults.yml"
        assert path.is_symlink() and path.resolve() == defaults
    options = load(REPOSITORY / "playbooks/check.meta.yml")["argument_specs"]["check"]["options"]
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    assert described == {name: value for name, value in load(defaults).items() if name.startswith("platform_")}


def group_variables(environment: str) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for path in sorted((REPOSITORY / "inventories" / environment / "group_vars").rglob("*.yml")):
        if path.name != "vault.yml":
            for name, value in (load(path) or {}).items():
                values.setdefault(name, []).append(value)
    return values


def test_the_readme_lists_every_variable_that_differs_in_the_lab() -> None:
    prod, lab = group_variables("prod"), group_variables("lab")
    different = {name for name in prod | lab if prod.get(name) != lab.get(name)}
    table = (REPOSITORY / "README.md").read_text().partition("## How the lab differs")[2].partition("\n## ")[0]
    assert {name for name in different if f"`{name}`" not in table} == set()


def test_the_network_document_lists_the_port_matrix() -> None:
    expected = {
        (
            ", ".join(entry["to"]),
            ", ".join(entry["from"]),
            ", ".join(f"{port}{'/udp' if entry['protocol'] == 'udp' else ''}" for port in entry["ports"]),
        )
        for entry in load(REPOSITORY / "playbooks/vars/port_matrix.yml")["port_matrix"]
    }
    text = (REPOSITORY / "docs/network.md").read_text()
    rows = {tuple(cell.strip() for cell in row.split("|")[1:4]) for row in text.splitlines() if row.startswith("| ")}
    assert rows - {("to", "from", "ports")} == expected
