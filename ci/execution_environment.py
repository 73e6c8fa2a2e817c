"""Python packages of the execution environment, at the versions of uv.lock.

    python -m ci.execution_environment

writes ci/requirements.txt. Collections come from requirements.yml instead of the package `ansible`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = REPOSITORY / "ci/requirements.txt"
REPLACED = "ansible"
"""A package of collections. Of what it requires, ansible-core is required."""


def locked(lock: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {package["name"]: package for package in lock["package"]}


def requirements(lock: Mapping[str, Any], direct: list[str]) -> list[str]:
    """`name==version` of the direct requirements and all that they require, with their markers."""
    packages = locked(lock)
    waiting = [(name, "") for name in direct if name != REPLACED] + [("ansible-core", "")]
    found: dict[str, set[str]] = {}
    while waiting:
        name, marker = waiting.pop()
        if marker in found.setdefault(name, set()):
            continue
        found[name].add(marker)
        for needed in packages[name].get("dependencies", []):
            waiting.append((needed["name"], needed.get("marker", marker)))
    return [
        f"{name}=={packages[name]['version']}" + ("" if "" in markers else f" ; {' or '.join(sorted(markers))}")
        for name, markers in sorted(found.items())
    ]


def content() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    direct = [re.match("[A-Za-z0-9-]+", text)[0] for text in project["dependencies"]]  # type: ignore[index]
    lines = requirements(tomllib.loads((REPOSITORY / "uv.lock").read_text()), direct)
    return "# Written by `python -m ci.execution_environment` from uv.lock.\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    REQUIREMENTS.write_text(content())
