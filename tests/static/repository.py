"""Reads the repository's files for the static tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FILTERS = REPOSITORY / "collections/ansible_collections/slipway/platform/plugins/filter"


class _Loader(yaml.CSafeLoader):
    """Reads Ansible's tags as plain values."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader)


def role_names() -> list[str]:
    return sorted(path.name for path in (REPOSITORY / "roles").iterdir() if path.is_dir())


@cache
def role_documents() -> dict[str, dict[str, Any]]:
    """Role → entry point → its specification."""
    return {
        role: load(REPOSITORY / "roles" / role / "meta/argument_specs.yml")["argument_specs"] for role in role_names()
    }


def role_specs() -> dict[str, dict[str, Any]]:
    """Role → options of its `main` entry point."""
    return {role: specs["main"].get("options", {}) for role, specs in role_documents().items()}


def role_defaults(role: str) -> dict[str, Any]:
    path = REPOSITORY / "roles" / role / "defaults/main.yml"
    return (load(path) or {}) if path.exists() else {}


def filters() -> dict[str, Callable[..., Any]]:
    """Filter of the collection → its function."""
    package = "ansible_collections.slipway.platform.plugins.filter"
    modules = [importlib.import_module(f"{package}.{path.stem}") for path in sorted(FILTERS.glob("*.py"))]
    return {name: function for module in modules for name, function in module.FilterModule().filters().items()}


def inventory_files() -> list[Path]:
    return sorted((REPOSITORY / "inventories").glob("*/group_vars/**/*.yml"))
