"""Filters for the renewal of certificates and private keys; see module_utils/certificates.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import certificates


def certificate_due(pem: str | None, authority: str, names: Sequence[str], addresses: Sequence[str], days: int) -> str:
    """Why a certificate has to be renewed, or an empty string."""
    return certificates.certificate_due(
        pem or "", authority=authority, names=list(names), addresses=list(addresses), days=int(days)
    )


def certificate_expiry(pem: str | None) -> int:
    """Expiry of a certificate in seconds since 1970; 0 if it is absent or unreadable."""
    return certificates.expiry(pem or "")


def key_pair_due(
    pem: str | None,
    private_key: Mapping[str, Any] | None,
    authority: str,
    names: Sequence[str],
    addresses: Sequence[str],
    days: int,
) -> str:
    """Why a certificate has to be renewed for the key of its host, or an empty string."""
    return certificates.key_pair_due(
        pem or "",
        public_key=str((private_key or {}).get("public_key", "")),
        authority=authority,
        names=list(names),
        addresses=list(addresses),
        days=int(days),
    )


def private_key_due(found: Mapping[str, Any] | None, owner: str, group: str, mode: str) -> str:
    """Why a private key has to be generated or its file corrected, or an empty string."""
    return certificates.private_key_due(found, owner=owner, group=group, mode=mode)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "certificate_due": certificate_due,
            "certificate_expiry": certificate_expiry,
            "key_pair_due": key_pair_due,
            "private_key_due": private_key_due,
        }
