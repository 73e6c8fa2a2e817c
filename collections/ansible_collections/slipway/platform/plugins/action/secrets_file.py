"""Action of `slipway.platform.secrets_file`: write the missing secrets of an environment to its file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.parsing.vault import VaultLib, VaultSecretsContext, match_encrypt_secret
from ansible.parsing.yaml.dumper import AnsibleDumper
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.platform.plugins.plugin_utils.secrets_file import (
    ESCROW_KEY,
    Wanted,
    completed,
    escrow_pair,
    faults,
    missing,
)


def vault_secret() -> Any:
    """The vault secret of this run to encrypt with; None without one."""
    secrets = VaultSecretsContext.current().secrets
    return match_encrypt_secret(secrets, constants.config.get_config_value("DEFAULT_VAULT_ENCRYPT_IDENTITY"))


def write(path: Path, content: bytes) -> None:
    """Replace the file at once; a temporary file of this kind is readable by its owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        names = {"type": "list", "elements": "str", "default": []}
        _, given = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "authority": {"type": "str", "required": True},
                "escrow_path": {"type": "path", "required": True},
                "tokens": names,
                "access_keys": names,
                "passwords": {"type": "dict", "default": {}},
                "encrypted": {"type": "bool", "default": True},
            }
        )
        path, escrow_path = Path(given["path"]), Path(given["escrow_path"])
        wanted = Wanted(given["authority"], given["tokens"], given["access_keys"], given["passwords"])
        existing = (self._loader.load_from_file(str(path), cache="none") or {}) if path.is_file() else {}
        absent, secret = missing(existing, wanted), vault_secret()
        problems = faults(existing, absent, str(path))
        if ESCROW_KEY in absent and escrow_path.exists():
            problems.append(
                f"{escrow_path}: exists, and {path} has no {ESCROW_KEY}. Add the public key that the file names in its "
                "comment, or move the file to create another pair."
            )
        if absent and given["encrypted"] and secret is None:
            problems.append(
                f"{path}: no secrets have been generated, because there is no vault password to encrypt the file. "
                "Write one to a file that only you can read and set ANSIBLE_VAULT_PASSWORD_FILE to its path, or set "
                "-e op_create_secrets_plain=true to write the file unencrypted."
            )
        result |= {"changed": bool(absent) and not problems, "missing": absent, "failed": bool(problems)}
        if problems:
            result["msg"] = "\n".join(problems)
        elif absent and not self._task.check_mode:
            public_key = str(existing.get(ESCROW_KEY, ""))
            if ESCROW_KEY in absent:
                # Before the public key: snapshots that nobody can decrypt would be lost.
                private_key, public_key = escrow_pair()
                escrow_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write(escrow_path, f"# public key: {public_key}\n{private_key}\n".encode())
            values = completed(existing, wanted, public_key)
            text = yaml.dump(values, Dumper=AnsibleDumper, width=1000, default_flow_style=False)
            content = text.encode()
            if given["encrypted"]:
                content = VaultLib().encrypt(content, secret[1], vault_id=secret[0])
            write(path, content)
        return result
