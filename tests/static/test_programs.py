"""Programs that hosts run: output that need not be UTF-8 is decoded without failing, and no wait is without an end."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY

FOLDERS = ("roles", "collections/ansible_collections/slipway", "ci")
RUNNERS = {"run", "Popen", "check_output", "check_call", "call"}


def strict_calls(source: str) -> list[int]:
    """Lines of the calls of subprocess that decode and fail at the first byte that is not UTF-8."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUNNERS:
            names = {keyword.arg for keyword in node.keywords}
            if names & {"text", "encoding", "universal_newlines"} and "errors" not in names:
                found.append(node.lineno)
    return found


def endless_waits(source: str) -> list[int]:
    """Lines of the calls that wait for a process without a timeout; `self.wait` is a method of ours."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, of = node.func.attr, ast.unparse(node.func.value)
            waits = name in RUNNERS - {"Popen"} if of == "subprocess" else name in {"wait", "communicate"}
            limited = "timeout" in {keyword.arg for keyword in node.keywords} or (name == "wait" and node.args)
            if waits and of != "self" and not limited:
                found.append(node.lineno)
    return found


def test_strict_calls_are_recognized() -> None:
    assert strict_calls("import subprocess\nsubprocess.run(['a'], text=True)") == [2]
    assert strict_calls("import subprocess\nsubprocess.run(['a'], text=True, errors='replace')") == []


def test_endless_waits_are_recognized() -> None:
    assert endless_waits("subprocess.run(['a'])\nprocess.wait()\nprocess.communicate(b'')") == [1, 2, 3]
    assert endless_waits("subprocess.run(['a'], timeout=1)\nprocess.wait(1)\nself.wait()\nprocess.poll()") == []


@pytest.mark.parametrize("faults", [strict_calls, endless_waits])
@pytest.mark.parametrize("folder", FOLDERS)
def test_output_that_is_not_utf_8_is_no_crash_and_every_wait_ends(
    folder: str, faults: Callable[[str], list[int]]
) -> None:
    paths: list[Path] = sorted((REPOSITORY / folder).rglob("*.py"))
    found = {str(path.relative_to(REPOSITORY)): lines for path in paths if (lines := faults(path.read_text()))}
    assert paths and found == {}
