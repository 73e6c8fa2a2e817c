from __future__ import annotations

import base64
import binascii
import hashlib

from lab.cloud.domain.common import require_unique_name
from lab.cloud.domain.objects import SshKey
from lab.cloud.errors import InvalidInput, UniquenessError
from lab.cloud.store import Transaction
from lab.cloud.wire.ssh_keys import Create

TYPES = frozenset({
    "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip


def create(tx: Transaction, body: Create) -> SshKey:
    fingerprint = _fingerprint(body.public_key)
    require_unique_name(tx, SshKey, body.name)
    if any(key.fingerprint == fingerprint for key in tx.all(SshKey)):
        raise UniquenessError("SSH key with the same fingerprint already exists", {"fields": [{"name": "public_key"}]})
    return tx.put(
        SshKey(
            id=tx.new_id(),
            created=tx.now,
            name=body.name,
            labels=body.labels,
            public_key=body.public_key.strip(),
            fingerprint=fingerprint,
        )
    )


def _fingerprint(public_key: str) -> str:
    """MD5 of the key itself in colon hex, as Hetzner shows it."""
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
        size = int.from_bytes(blob[:4])
        if len(words[0]) != size or blob[4 : 4 + size].decode("ascii") != words[0] or words[0] not in TYPES:
            raise ValueError(words[0])
    except (IndexError, ValueError, binascii.Error):
        raise InvalidInput.field("public_key", "is not a public key in OpenSSH's format") from None
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, 32, 2))
