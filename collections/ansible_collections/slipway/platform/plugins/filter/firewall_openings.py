"""Resolve the port matrix of an environment to the openings of one host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from ansible.errors import AnsibleFilterError

KEYS = {"name", "to", "from", "protocol", "ports"}
PROTOCOLS = ("tcp", "udp")
ADMINS = "admins"
WORLD = "world"


def _ports(opening: str, ports: Any) -> list[str]:
    """Validate ports and ranges ("30000-32767") and return them in the syntax of nftables."""
    found = []
    for port in ports if isinstance(ports, Sequence) and not isinstance(ports, str) else [ports]:
        ends = str(port).split("-")
        numbers = [int(end) for end in ends if end.isdecimal()]
        if (
            len(numbers) != len(ends)
            or len(ends) > 2
            or not all(0 < n < 65536 for n in numbers)
            or numbers[0] > numbers[-1]
        ):
            raise AnsibleFilterError(
                f"opening {opening!r} has the port {port!r}; give numbers from 1 to 65535 or ranges such as 30000-32767"
            )
        found.append("-".join(map(str, numbers)))
    if not found:
        raise AnsibleFilterError(f"opening {opening!r} names no port; give a list of numbers or ranges")
    return found


def _words(opening: str, key: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise AnsibleFilterError(f"opening {opening!r} has {key}: {value!r}; give a list of at least one group")
    return [str(word) for word in value]


def _members(opening: str, word: str, groups: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if word not in groups:
        raise AnsibleFilterError(
            f"opening {opening!r} names the group {word!r}, which the inventory does not have; "
            "correct the name or declare the group, empty if it has no host"
        )
    return groups[word]


def _cidr(address: str) -> str:
    return str(ip_network(str(address), strict=False))


def _order(cidr: str) -> tuple[int, int, int]:
    network = ip_network(cidr)
    return network.version, int(network.network_address), network.prefixlen


def firewall_openings(
    matrix: Sequence[Mapping[str, Any]],
    host: str,
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    admin_cidrs: Sequence[str],
) -> list[dict[str, Any]]:
    """Resolve the port matrix for one host: name, protocol, ports, and the source CIDRs (or the world).

    A host needs no opening for itself; an opening without sources is omitted.
    """
    openings: list[dict[str, Any]] = []
    for entry in matrix:
        name = str(entry.get("name", "without a name"))
        if set(entry) != KEYS:
            wrong = sorted(set(entry) ^ KEYS)
            raise AnsibleFilterError(f"opening {name!r} needs exactly the keys {sorted(KEYS)}; correct {wrong}")
        if entry["protocol"] not in PROTOCOLS:
            raise AnsibleFilterError(f"opening {name!r} has the protocol {entry['protocol']!r}; use tcp or udp")
        ports = _ports(name, entry["ports"])
        targets = [member for word in _words(name, "to", entry["to"]) for member in _members(name, word, groups)]
        sources: set[str] = set()
        world = False
        for word in _words(name, "from", entry["from"]):
            if word == WORLD:
                world = True
            elif word == ADMINS:
                sources |= {_cidr(cidr) for cidr in admin_cidrs}
            else:
                for member in _members(name, word, groups):
                    if member == host:
                        continue
                    if not addresses.get(member):
                        raise AnsibleFilterError(
                            f"opening {name!r} is for {member}, which has no private address; "
                            "set provision_private_ip in the inventory's hosts.yml"
                        )
                    sources.add(_cidr(addresses[member]))
        if host in targets and (world or sources):
            openings.append(
                {
                    "name": name,
                    "protocol": entry["protocol"],
                    "ports": ports,
                    "world": world,
                    "sources": [] if world else sorted(sources, key=_order),
                }
            )
    return openings


def openings_admit(openings: Sequence[Mapping[str, Any]], address: str, protocol: str, port: int) -> bool:
    """Whether an opening accepts connections from this address to this port."""
    try:
        client = ip_address(address)
    except ValueError as error:
        raise AnsibleFilterError(f"{address!r} is not an IP address: {error}") from error
    for opening in openings:
        if opening["protocol"] != protocol:
            continue
        ranges = [[int(end) for end in str(ports).split("-")] for ports in opening["ports"]]
        if not any(ends[0] <= int(port) <= ends[-1] for ends in ranges):
            continue
        if opening["world"] or any(client in ip_network(cidr) for cidr in opening["sources"]):
            return True
    return False


class FilterModule:
    """Filters of the port matrix."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"firewall_openings": firewall_openings, "openings_admit": openings_admit}
