"""Shared by all resources: unique names, references, addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from lab.cloud.domain.objects import FloatingIp, Named, PrimaryIp
from lab.cloud.errors import NotFound, ResourceLimitExceeded, UniquenessError
from lab.cloud.store import Transaction
from lab.cloud.wire.base import Ref
from lab.machines.base import ImageSupport


@dataclass(frozen=True, slots=True)
class Site:
    """Address ranges, images and stock of this lab."""

    public_range: IPv4Network
    public_range_v6: IPv6Network
    image_support: Callable[[str], ImageSupport]
    sold_out: Callable[[str, str], bool]
    """Whether a server type (name) is out of stock at a location (name)."""


def require_unique_name[N: Named](tx: Transaction, kind: type[N], name: str, but: N | None = None) -> None:
    if any(other.name == name and other is not but for other in tx.all(kind)):
        noun = "server " if kind.TYPE == "server" else ""
        raise UniquenessError(
            f"{noun}name is already used", {} if kind.TYPE == "server" else {"fields": [{"name": "name"}]}
        )


def relabel[N: Named](tx: Transaction, obj: N, name: str | None, labels: dict[str, str] | None) -> N:
    """Set the name and the labels that are given; labels replace all existing ones."""
    if name is not None:
        require_unique_name(tx, type(obj), name, but=obj)
        obj = replace(obj, name=name)
    return tx.put(obj if labels is None else replace(obj, labels=labels))


def require[N: Named](tx: Transaction, kind: type[N], ref: Ref) -> N:
    """The object with this id (or its digits), else with this name."""
    found = tx.get(kind, int(ref)) if isinstance(ref, int) or ref.isdecimal() else None
    if found is None:
        found = next((obj for obj in tx.all(kind) if obj.name == ref), None)
    if found is None:
        raise NotFound.of(kind.TYPE, ref)
    return found


def public_ips(tx: Transaction) -> list[PrimaryIp | FloatingIp]:
    return [*tx.all(PrimaryIp), *tx.all(FloatingIp)]


def free_address(tx: Transaction, site: Site, type: str) -> str:
    """The next public address after the highest in use, so that a released address is not reused at once."""
    used = {ip.ip for ip in public_ips(tx) if ip.type == type}
    if type == "ipv4":
        first, count = int(site.public_range[0]), site.public_range.num_addresses
        numbers = {int(IPv4Network(ip)[0]) - first for ip in used}
    else:
        first, count = int(site.public_range_v6[0]) >> 64, 2 ** (64 - site.public_range_v6.prefixlen)
        numbers = {(int(IPv6Network(ip)[0]) >> 64) - first for ip in used}
    # The first and the last address are the network's own.
    highest = max(numbers, default=0)
    for number in chain(range(highest + 1, count - 1), range(1, highest)):
        if number not in numbers:
            if type == "ipv4":
                return str(site.public_range[number])
            return str(IPv6Network(((first + number) << 64, 64)))
    raise ResourceLimitExceeded(f"primary_{type}_limit", f"no public {type} address is left in this lab")
