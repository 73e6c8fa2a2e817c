"""Join tokens in short and K10 form, and encryption of data with a token or a key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from .log import Fatal

SERVER_USER = "server"
AGENT_USER = "node"


@dataclass(frozen=True, slots=True)
class Token:
    """`K10<sha256 of the server CA>::<user>:<password>`; the short form is the password alone."""

    password: str
    user: str = ""
    ca_hash: str = ""

    @classmethod
    def parse(cls, text: str) -> Token:
        text = text.strip()
        if not text:
            raise Fatal("--token is required")
        if not text.startswith("K10"):
            user, separator, password = text.partition(":")
            if separator and user in (SERVER_USER, AGENT_USER):
                return cls(password, user)
            return cls(text)
        head, separator, credentials = text[3:].partition("::")
        user, colon, password = credentials.partition(":")
        if not separator or len(head) != 64 or not colon or not password:
            raise Fatal("invalid token format: expected K10<CA hash>::<user>:<password>")
        return cls(password, user, head)

    def format(self, ca_hash: str, user: str) -> str:
        return f"K10{ca_hash}::{user}:{self.password}"


def ca_hash(bundle: bytes) -> str:
    return hashlib.sha256(bundle).hexdigest()


def generate() -> str:
    return secrets.token_hex(16)


def short_hash(text: str) -> str:
    """RKE2's identifier of a token: the first 12 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _keys(passphrase: bytes, salt: bytes, rounds: int) -> tuple[bytes, bytes]:
    derived = hashlib.pbkdf2_hmac("sha256", passphrase, salt, rounds, 64)
    return derived[:32], derived[32:]


def _stream(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """Counter mode over HMAC-SHA256: the standard library has no cipher."""
    blocks = range((len(data) + 31) // 32)
    keystream = b"".join(hmac.digest(key, nonce + block.to_bytes(8, "big"), "sha256") for block in blocks)
    return bytes(a ^ b for a, b in zip(data, keystream, strict=False))


PASSPHRASE_ROUNDS = 4096
"""For tokens chosen by users; random keys need one round only."""


def seal(passphrase: str, data: bytes, *, rounds: int = PASSPHRASE_ROUNDS) -> bytes:
    """Encrypt, then authenticate, with a new salt each time."""
    salt = secrets.token_bytes(16)
    encryption, authentication = _keys(passphrase.encode(), salt, rounds)
    body = _stream(encryption, salt, data)
    return salt + body + hmac.digest(authentication, salt + body, "sha256")


def unseal(passphrase: str, sealed: bytes, *, rounds: int = PASSPHRASE_ROUNDS) -> bytes | None:
    """The data, or None when the passphrase is wrong or the bytes were modified."""
    salt, body, tag = sealed[:16], sealed[16:-32], sealed[-32:]
    encryption, authentication = _keys(passphrase.encode(), salt, rounds)
    if not hmac.compare_digest(tag, hmac.digest(authentication, salt + body, "sha256")):
        return None
    return _stream(encryption, salt, body)
