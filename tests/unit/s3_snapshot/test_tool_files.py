"""The tools that roles install as one file hold everything that they import."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.playbooks import REPOSITORY

IMPORT_ALL = """
import sys, zipfile, importlib
sys.path.insert(0, sys.argv[1])
for name in sorted(zipfile.ZipFile(sys.argv[1]).namelist()):
    if name.endswith(".py") and not name.endswith("__main__.py"):
        importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
"""


@pytest.mark.parametrize("source", sorted(REPOSITORY.glob("roles/*/files/python")), ids=lambda path: path.parts[-3])
def test_every_module_of_a_tool_is_imported_from_the_tool_alone(source: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tool.pyz"
    zipapp.create_archive(source, tool)
    # -I and -S: neither the checkout nor installed packages, as on a host.
    run = subprocess.run([sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(tool)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
