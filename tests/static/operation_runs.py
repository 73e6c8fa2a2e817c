"""Which operations the tests run: read from calls in Python and from imports in Molecule's plays."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.static.repository import REPOSITORY, load

RUNNERS = {"operate", "play", "played", "run_playbook", "run", "Popen"}
"""Functions and methods that run the playbook named by one of their arguments."""
OPERATION = re.compile(r"(?:^|/)operations/([a-z0-9_]+)(?:[.]yml)?$")
CHECK_MODE = "--check"


def operations() -> list[str]:
    folder = REPOSITORY / "playbooks/operations"
    return sorted(path.stem for path in folder.glob("*.yml") if not path.name.endswith(".meta.yml"))


def run_by_tests() -> set[str]:
    """Operations that a test of this repository runs, `make soak` and the scenarios included."""
    found: set[str] = set()
    for path in sorted([*(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "molecule").rglob("*.py")]):
        if "static" not in path.relative_to(REPOSITORY).parts:
            found |= run_by_python(path.read_text())
    for path in sorted((REPOSITORY / "molecule").rglob("*.yml")):
        found |= run_by_plays(load(path), path.parent)
    return found


def run_by_python(source: str) -> set[str]:
    """Operations named in a call of a runner, in place or by a constant's name; a run in check mode does not count."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _function(node) not in RUNNERS:
            continue
        words = set(_words(node, constants))
        if CHECK_MODE not in words:
            found |= {match[1] for word in words if (match := OPERATION.search(word))}
    return found


def run_by_plays(document: Any, folder: Path) -> set[str]:
    """Operations that the plays of a scenario import."""
    plays = document if isinstance(document, list) else []
    imported = [play.get("ansible.builtin.import_playbook") for play in plays if isinstance(play, dict)]
    return {
        path.stem
        for name in imported
        if isinstance(name, str)
        for path in [(folder / name).resolve()]
        if path.parent == REPOSITORY / "playbooks/operations"
    }


def _function(call: ast.Call) -> str:
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _words(call: ast.Call, constants: dict[str, str]) -> Iterator[str]:
    """Texts in the arguments of a call, without those of calls inside of them."""
    nodes: list[ast.AST] = [*call.args, *(keyword.value for keyword in call.keywords)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name) and node.id in constants:
            yield constants[node.id]
        elif not isinstance(node, (ast.Call, ast.JoinedStr)):
            nodes += ast.iter_child_nodes(node)
