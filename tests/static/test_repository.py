"""Rooms, pins, links and secrets of the repository."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY, inventory_files, load

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


def test_links_in_documents_lead_somewhere() -> None:
    broken = []
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("roles/*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def test_production_does_not_know_the_lab() -> None:
    """The lab differs by endpoint, mirrors, sizes and secrets in inventories/lab; nothing else may branch on it."""
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


def test_nothing_is_swept_under_the_rug() -> None:
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


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_have_the_same_files(environment: str) -> None:
    """What one environment says, all say: they differ by value, not by shape."""
    root = REPOSITORY / "inventories" / environment
    shape = {str(path.relative_to(root)) for path in root.rglob("*.yml") if ".state" not in path.parts}
    prod = REPOSITORY / "inventories/prod"
    expected = {str(path.relative_to(prod)) for path in prod.rglob("*.yml") if ".state" not in path.parts}
    additions = {"group_vars/all/lab.yml", "group_vars/all/secrets.yml"} if environment == "lab" else set()
    shape.discard("group_vars/all/vault.yml")
    expected.discard("group_vars/all/vault.yml")
    assert shape ^ expected == additions
