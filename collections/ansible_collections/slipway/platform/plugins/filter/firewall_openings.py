"""Derive host firewall, cloud firewalls and closed ports from the port matrix of an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from ansible.errors import AnsibleFilterError

KEYS = {"name", "to", "from", "protocol", "ports"}
PROTOCOLS = ("tcp", "udp")
ADMINS = "admins"
WORLD = "world"
ALL = "all"
WORLD_CIDRS = ["0.0.0.0/0", "::/0"]
PROBED_PORTS = 12
"""Ports at the start of a range that are probed, besides its last one: services bind the lowest free ports."""


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


def public_openings(matrix: Sequence[Mapping[str, Any]], admin_cidrs: Sequence[str]) -> list[dict[str, Any]]:
    """Openings of the cloud firewalls: the ports of the matrix that are open to the world or to administrators."""
    openings: list[dict[str, Any]] = []
    for entry in matrix:
        if not {WORLD, ADMINS} & set(entry["from"]):
            continue
        sources = WORLD_CIDRS if WORLD in entry["from"] else list(admin_cidrs)
        for group in entry["to"]:
            for port in _ports(str(entry["name"]), entry["ports"]):
                opening = {"name": entry["name"], "protocol": entry["protocol"], "port": port, "sources": sources}
                openings.append(opening if group == ALL else opening | {"group": group})
    return openings


def closed_ports(
    matrix: Sequence[Mapping[str, Any]],
    hosts: Iterable[str],
    groups: Mapping[str, Sequence[str]],
    further: Mapping[str, Sequence[int]],
) -> dict[str, list[int]]:
    """TCP ports of each host that must be closed to the world and to administrators, for probes.

    These are the ports that the matrix opens to other hosts alone, and the `further` ones of a group: ports of its
    services that the matrix opens to nobody.
    """
    ports: dict[str, list[int]] = {}
    for host in hosts:
        internal = {port for group, more in further.items() if host in groups.get(group, ()) for port in more}
        public: set[int] = set()
        for entry in matrix:
            if entry["protocol"] != "tcp" or not any(
                group == ALL or host in groups.get(group, ()) for group in entry["to"]
            ):
                continue
            for text in _ports(str(entry["name"]), entry["ports"]):
                first, last = int(text.split("-")[0]), int(text.split("-")[-1])
                if {WORLD, ADMINS} & set(entry["from"]):
                    public |= set(range(first, last + 1))
                else:
                    internal |= {*range(first, min(first + PROBED_PORTS, last + 1)), last}
        if internal - public:
            ports[host] = sorted(internal - public)
    return ports


def closed_inside(
    matrix: Sequence[Mapping[str, Any]],
    source: str,
    hosts: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    admin_cidrs: Sequence[str],
    further: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    """Probes that a host runs: ports that the next host of the list keeps closed to it, as in `closed_ports`, and SSH.

    Hetzner's firewalls do not filter the private network, so only the host's own firewall drops these packets. A ping
    is the control: every host answers it.
    """
    own = hosts.index(source)
    for target in (*hosts[own + 1 :], *hosts[:own]):
        openings = firewall_openings(matrix, target, groups, addresses, admin_cidrs)
        ports = {22, *closed_ports(matrix, [target], groups, further).get(target, [])}
        closed = sorted(port for port in ports if not openings_admit(openings, addresses[source], "tcp", port))
        if closed:
            common = {"name": target, "address": addresses[target], "source": source}
            return [{"kind": "ping", **common}, *({"kind": "closed", "port": port, **common} for port in closed)]
    return []


class FilterModule:
    """Filters of the port matrix."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "firewall_openings": firewall_openings,
            "openings_admit": openings_admit,
            "public_openings": public_openings,
            "closed_ports": closed_ports,
            "closed_inside": closed_inside,
        }
