"""Filter: encrypt a text with age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"age_encrypt": encrypt}
