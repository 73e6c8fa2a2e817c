"""Filters of the role gitlab_runner: config.toml, the network of builds, faulty options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.gitlab_runner import (
    PREFIX,
    faults,
    network,
    primary_fingerprints,
)


def toml(value: Mapping[str, Any]) -> str:
    """A dict as a TOML document; keys without a value (null) are left out, lists of dicts become arrays of tables."""
    return "\n".join(_table("", value)) + "\n"


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    lines, below = [], []
    for key, value in table.items():
        path = f"{name}.{_key(key)}" if name else _key(key)
        if value is None:
            continue
        if isinstance(value, Mapping):
            below += ["", f"[{path}]", *_table(path, value)]
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                below += ["", f"[[{path}]]", *_table(path, item)]
        else:
            lines.append(f"{_key(key)} = {_value(value, path)}")
    return lines + below


def _key(key: Any) -> str:
    text = str(key)
    return text if text.replace("-", "").replace("_", "").isalnum() and text.isascii() else json.dumps(text)


def _value(value: Any, path: str) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item, path) for item in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        # TOML's basic strings and JSON's agree on their escapes.
        return json.dumps(str(value))
    raise AnsibleFilterError(f"{path}: a {type(value).__name__} cannot be written as TOML")


def gitlab_runner_faults(options: Mapping[str, Any]) -> list[str]:
    """The faults of the role's options, by their full names, one sentence each."""
    plain = {name.removeprefix(PREFIX): value for name, value in options.items()}
    return [f"{PREFIX}{name}: {text}" for name, text in faults(plain)]


def gitlab_runner_network(subnet: str, name: str, identity: str) -> str:
    """The file of podman's network for builds."""
    return json.dumps(network(name, identity, subnet), indent=4) + "\n"


def gitlab_runner_primary_fingerprints(lines: Sequence[str]) -> list[str]:
    """The fingerprints of primary keys in the output of `gpg --with-colons --show-keys`."""
    return primary_fingerprints(list(lines))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "toml": toml,
            "gitlab_runner_faults": gitlab_runner_faults,
            "gitlab_runner_network": gitlab_runner_network,
            "gitlab_runner_primary_fingerprints": gitlab_runner_primary_fingerprints,
        }
