"""Filters of the escrow: its text, and its encryption with age."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError


def encrypt(text: str, public_key: str) -> str:
    """The text encrypted for a public key of age, in armored form, as `age --decrypt --identity` reads it."""
    from pyrage import RecipientError, encrypt, x25519  # compiled, and used by one operation

    try:
        recipient = x25519.Recipient.from_str(str(public_key))
    except RecipientError as error:
        raise AnsibleFilterError(
            f"platform_escrow_public_key is {str(public_key)!r}, which is no public key of age. Run "
            "playbooks/operations/create_secrets.yml, which creates the pair."
        ) from error
    return str(encrypt(str(text).encode(), [recipient], armored=True).decode())


def escrow_document(entries: Sequence[Mapping[str, Any]], values: Sequence[Any], environment: str) -> str:
    """The text of an escrow: each secret with the reason for it, as YAML. An entry without a value is a fault.

    `values` are those of the entries, in their order; an empty one is permitted for an optional entry, and left out.
    """
    missing = [
        entry["name"]
        for entry, value in zip(entries, values, strict=True)
        if not value and not entry.get("optional", False)
    ]
    if missing:
        raise AnsibleFilterError(
            f"{', '.join(missing)}: no value in the inventory, and backups are useless without it. Run "
            "playbooks/operations/create_secrets.yml, or restore the vault of this environment."
        )
    lines = [f"# Escrow of {environment}: what a restore needs beside the bucket and the repository.", "---"]
    for entry, value in zip(entries, values, strict=True):
        if value:
            lines += [f"# {entry['reason']}", yaml.safe_dump(_plain({entry["name"]: value}), width=1000).rstrip()]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    """Without Ansible's types, which YAML cannot represent."""
    return json.loads(json.dumps(value))


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"age_encrypt": encrypt, "escrow_document": escrow_document}
