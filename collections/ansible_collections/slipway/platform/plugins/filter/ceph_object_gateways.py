"""Filters of the role ceph for its object gateways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def gateway_probes(
    addresses: Mapping[str, str], port: int, name: str, authority: str, valid_days: int = 0
) -> list[dict[str, Any]]:
    """Probes of each gateway under its name over TLS 1.3, and of its rejection of TLS 1.2."""
    common = {
        "port": port,
        "server_name": name,
        "authority": authority,
        "path": "/",
        "statuses": [200],
        "valid_days": int(valid_days),
    }
    return [
        {"name": f"{kind} of {host}", "kind": kind, "address": address, **common}
        for host, address in addresses.items()
        for kind in ("https", "tls_refused")
    ]


def s3_keys(users: Sequence[Mapping[str, Any]], buckets: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Keys of the users that own one of the buckets, as options of slipway.platform.s3_buckets."""
    owners = {bucket["owner"] for bucket in buckets}
    return [
        {"owner": user["name"], "access_key": user["access_key"], "secret_key": user["secret_key"]}
        for user in users
        if user["name"] in owners
    ]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "ceph_gateway_probes": gateway_probes,
            "ceph_s3_keys": s3_keys,
        }
