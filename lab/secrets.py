"""Secrets of a lab on disk: its API token and the SSH key pair of its hosts.

Created once, readable by root only, removed with the lab. `playbooks/operations/create_secrets.yml` creates the
platform's secrets (RKE2 tokens, CA), in the lab as in every environment.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from lab.settings import Settings


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically; only its owner can read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def make_private_dir(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def api_token(settings: Settings) -> str:
    """The lab's API token, 64 characters as Hetzner's (hcloud-cli rejects other lengths)."""
    path = settings.state_dir / "token"
    if not path.exists():
        make_private_dir(settings.state_dir)
        write_private(path, secrets.token_hex(32))
    return path.read_text(encoding="ascii").strip()


def gitlab_token(settings: Settings) -> str:
    """The personal access token of the operator of the lab's GitLab."""
    path = settings.state_dir / "gitlab_token"
    if not path.exists():
        make_private_dir(settings.state_dir)
        write_private(path, f"glpat-{secrets.token_urlsafe(15)}")
    return path.read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class SshKey:
    private_key_path: Path
    public_key: str


def ssh_key(settings: Settings) -> SshKey:
    """The Ed25519 key for SSH to the lab's hosts."""
    private = settings.state_dir / "ssh" / "id_ed25519"
    public = private.with_suffix(".pub")
    if not (private.exists() and public.exists()):
        # Importing cryptography costs the daemon 15 MB of memory: only when a key is to be generated.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        make_private_dir(private.parent)
        key = Ed25519PrivateKey.generate()
        public_text = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_private(public, public_text + f" slipway-{settings.name}\n".encode())
        write_private(
            private,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ),
        )
    return SshKey(private_key_path=private, public_key=public.read_text(encoding="ascii").strip())
