"""Lists of files for the module configuration: accounts' keys, trusted certificates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.environment.formats import authorized_key


def _home(account: Mapping[str, Any]) -> str:
    name = account["name"]
    return "/root" if name == "root" else f"/home/{name}"


def account_folder(account: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an account's .ssh folder for the module configuration."""
    name = account["name"]
    return {"path": f"{_home(account)}/.ssh", "mode": "0700", "owner": name, "group": name}


def account_keys(account: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the authorized_keys file of an account, which holds exactly these keys."""
    name = account["name"]
    keys = [key.strip() for key in account["public_keys"]]
    for number, key in enumerate(keys, 1):
        # sshd ignores an invalid key, which locks its owner out, so invalid keys are rejected here.
        if (fault := authorized_key(key)) is not None:
            problem, remedy = fault
            raise AnsibleFilterError(f"key {number} of the account {name!r} {problem}. {remedy}")
    return {
        "path": f"{_home(account)}/.ssh/authorized_keys",
        "content": "".join(f"{key}\n" for key in keys),
        "mode": "0600",
        "owner": name,
        "group": name,
    }


def trusted_files(certificates: Sequence[str], folder: str) -> list[dict[str, Any]]:
    """Describe one file for each CA certificate, named by its digest, so that order and duplicates have no effect."""
    files = {}
    for certificate in certificates:
        text = str(certificate).strip() + "\n"
        if text.count("-----BEGIN CERTIFICATE-----") != 1 or not text.startswith("-----BEGIN CERTIFICATE-----"):
            raise AnsibleFilterError(
                f"a trusted certificate starts with {text[:30]!r}; set PEM text with one certificate in each entry"
            )
        path = f"{folder}/{hashlib.sha256(text.encode()).hexdigest()[:16]}.crt"
        files[path] = {"path": path, "content": text, "validate": ["openssl", "x509", "-noout", "-in", "%s"]}
    return [files[path] for path in sorted(files)]


class FilterModule:
    """Filters that describe files for the module configuration."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"account_folder": account_folder, "account_keys": account_keys, "trusted_files": trusted_files}
