"""Output of programs that hosts run is decoded without failing: a log line or a value of etcd need not be UTF-8."""

from __future__ import annotations

import ast
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


def test_strict_calls_are_recognized() -> None:
    assert strict_calls("import subprocess\nsubprocess.run(['a'], text=True)") == [2]
    assert strict_calls("import subprocess\nsubprocess.run(['a'], text=True, errors='replace')") == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_output_that_is_not_utf_8_is_no_crash(folder: str) -> None:
    paths: list[Path] = sorted((REPOSITORY / folder).rglob("*.py"))
    found = {str(path.relative_to(REPOSITORY)): lines for path in paths if (lines := strict_calls(path.read_text()))}
    assert paths and found == {}
