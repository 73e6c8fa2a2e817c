"""Filters about certificates and private keys: whether they still serve; see module_utils/certificates.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import certificates


def certificate_due(pem: str | None, authority: str, names: Sequence[str], addresses: Sequence[str], days: int) -> str:
    """Why a certificate has to be issued anew, or an empty text."""
    return certificates.certificate_due(
        pem or "", authority=authority, names=list(names), addresses=list(addresses), days=int(days)
    )


def certificate_expiry(pem: str | None) -> int:
    """When a certificate expires, in seconds since 1970; 0 where there is none that can be read."""
    return certificates.expiry(pem or "")


def key_pair_due(
    pem: str | None,
    private_key: Mapping[str, Any] | None,
    authority: str,
    names: Sequence[str],
    addresses: Sequence[str],
    days: int,
) -> str:
    """Why a certificate has to be issued anew for the key of its host, or an empty text."""
    return certificates.key_pair_due(
        pem or "",
        public_key=str((private_key or {}).get("public_key", "")),
        authority=authority,
        names=list(names),
        addresses=list(addresses),
        days=int(days),
    )


def private_key_due(found: Mapping[str, Any] | None, owner: str, group: str, mode: str) -> str:
    """Why a private key has to be made or its file corrected, or an empty text."""
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
