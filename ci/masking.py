"""Secrets of a run: private copies on disk, and their removal from everything that is shown or stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.vault import AnsibleVaultError, VaultLib, VaultSecret

MASK = "[MASKED]"
SHORTEST = 8
"""Characters. Shorter values occur in ordinary text; GitLab masks none either."""
VAULT_HEADER = "$ANSIBLE_VAULT;"


class InputError(ValueError):
    """One sentence about what was given to the run, and what to do."""


def write_private(path: Path, content: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    return path


class Masker:
    """Replaces secrets. A secret of several lines is replaced line by line, since diffs and YAML indent each."""

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = {line.strip() for secret in secrets for line in secret.splitlines()}
        found = [line for line in lines if len(line) >= SHORTEST and not line.startswith("-----")]
        # The longest first, so that a secret which contains another one disappears whole.
        self._pattern = re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True)))) if found else None

    def text(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def value[T](self, value: T) -> T:
        """The same structure with every text masked."""
        return self._value(value)  # type: ignore[no-any-return]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value)
    elif isinstance(node, str):
        yield node


def vault_files(inventory: Path) -> list[Path]:
    """The files of an inventory that are encrypted as a whole."""
    found = []
    for path in sorted(inventory.glob("*_vars/**/*.y*ml")) if inventory.is_dir() else []:
        with path.open("rb") as file:
            if file.read(len(VAULT_HEADER)) == VAULT_HEADER.encode():
                found.append(path)
    return found


def vault_values(inventory: Path, password: str | None) -> list[str]:
    """Every text in the encrypted files of an inventory. Fails before the run if the password is wrong."""
    files = vault_files(inventory)
    if files and password is None:
        raise InputError(
            f"{files[0]}: is encrypted and there is no vault password. Set ANSIBLE_VAULT_PASSWORD_FILE to its file."
        )
    vault = VaultLib([("default", VaultSecret((password or "").encode()))])
    values = []
    for path in files:
        try:
            values += list(_leaves(yaml.safe_load(vault.decrypt(path.read_bytes()))))
        except AnsibleVaultError:
            raise InputError(
                f"{path}: ANSIBLE_VAULT_PASSWORD_FILE does not decrypt it. Use the password of this environment."
            ) from None
    return values
