"""Hetzner firewalls: one nftables table in the router, replaced in one transaction at every change.

Two base chains, because an `accept` ends only its own chain: traffic between two hosts passes the sender's `out` rules
and the receiver's `in` rules. Private networks are not routed here, and the router itself serves metadata.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from lab.machines.base import FirewallRule, FirewallSpec, MachineError
from lab.machines.commands import run
from lab.settings import Settings

TABLE = "firewalls"
_ICMP = {4: "icmp", 6: "ipv6-icmp"}


def rule_lines(rule: FirewallRule) -> list[str]:
    """nft rules of one firewall rule, one per address family."""
    networks = [ip_network(text, strict=False) for text in rule.cidrs]
    lines = []
    v4 = list(collapse_addresses(item for item in networks if isinstance(item, IPv4Network)))
    v6 = list(collapse_addresses(item for item in networks if isinstance(item, IPv6Network)))
    side = "saddr" if rule.direction == "in" else "daddr"
    if v4:
        lines.append(f"{_addresses('ip', 'ipv4', side, v4)} {_protocol(rule, 4)} accept")
    if v6:
        lines.append(f"{_addresses('ip6', 'ipv6', side, v6)} {_protocol(rule, 6)} accept")
    return lines


def _addresses(word: str, family: str, side: str, networks: Sequence[IPv4Network | IPv6Network]) -> str:
    if any(network.prefixlen == 0 for network in networks):
        return f"meta nfproto {family}"
    return f"{word} {side} {{ {', '.join(str(network) for network in networks)} }}"


def _protocol(rule: FirewallRule, version: int) -> str:
    if rule.protocol in ("tcp", "udp"):
        port = (rule.port or "any").replace(" ", "")
        return f"meta l4proto {rule.protocol}" if port == "any" else f"{rule.protocol} dport {port}"
    if rule.protocol == "icmp":
        return f"meta l4proto {_ICMP[version]}"
    if rule.protocol in ("esp", "gre"):
        return f"meta l4proto {rule.protocol}"
    raise MachineError(f"firewall protocol {rule.protocol!r} is unknown. Use tcp, udp, icmp, esp or gre.")


def render(
    firewalls: Mapping[int, FirewallSpec], members: Mapping[int, Sequence[int]], resolvers: Sequence[str] = ()
) -> str:
    """The complete table. A host without firewall is in no map and therefore open.

    Inbound: dropped unless a rule accepts. Outbound: open until any of the host's firewalls has an `out` rule; name
    resolution is always open.
    """
    chains: list[str] = []
    for firewall in firewalls.values():
        for direction in ("in", "out"):
            lines = [line for rule in firewall.rules if rule.direction == direction for line in rule_lines(rule)]
            chains += _chain(f"f{firewall.firewall_id}-{direction}", lines)
    inbound, outbound = [], []
    for server_id, ids in sorted(members.items()):
        used = [firewalls[firewall_id] for firewall_id in ids if firewall_id in firewalls]
        if not used:
            continue
        inbound.append(f'"p{server_id}" : jump s{server_id}-in')
        chains += _chain(f"s{server_id}-in", [*(f"jump f{item.firewall_id}-in" for item in used), "drop"])
        if any(rule.direction == "out" for item in used for rule in item.rules):
            outbound.append(f'"p{server_id}" : jump s{server_id}-out')
            chains += _chain(f"s{server_id}-out", [*(f"jump f{item.firewall_id}-out" for item in used), "drop"])
    states = ["ct state established,related accept", "ct state invalid drop"]
    answers = [f"ip daddr {{ {', '.join(resolvers)} }} th dport 53 accept"] if resolvers else []
    egress = [*states, *answers, *([f"iifname vmap {{ {', '.join(outbound)} }}"] if outbound else [])]
    ingress = [*states[:1], *([f"oifname vmap {{ {', '.join(inbound)} }}"] if inbound else [])]
    chains += _chain("egress", ["type filter hook forward priority -10;", *egress])
    chains += _chain("ingress", ["type filter hook forward priority 0;", *ingress])
    body = "\n".join(f"  {line}" for line in chains)
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{body}\n}}\n"


def _chain(name: str, lines: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", *(f"  {line}" for line in lines), "}"]


class Firewalls:
    """The rule sets and the servers they are applied to."""

    def __init__(self, settings: Settings, resolvers: Sequence[str]) -> None:
        self._namespace = settings.router_namespace
        self._resolvers = tuple(resolvers)
        self._lock = threading.RLock()
        self._firewalls: dict[int, FirewallSpec] = {}
        self._members: dict[int, tuple[int, ...]] = {}

    def apply(self, spec: FirewallSpec) -> None:
        with self._lock:
            if self._firewalls.get(spec.firewall_id) == spec:
                return
            self._change({**self._firewalls, spec.firewall_id: spec}, self._members)

    def delete(self, firewall_id: int) -> None:
        with self._lock:
            if firewall_id not in self._firewalls:
                return
            left = {key: value for key, value in self._firewalls.items() if key != firewall_id}
            members = {key: tuple(i for i in value if i != firewall_id) for key, value in self._members.items()}
            self._change(left, members)

    def assign(self, server_id: int, firewall_ids: Sequence[int]) -> None:
        with self._lock:
            missing = [item for item in firewall_ids if item not in self._firewalls]
            if missing:
                raise MachineError(f"firewall {missing[0]} does not exist. Create it before it is applied to a server.")
            if tuple(firewall_ids) == self._members.get(server_id, ()):
                return
            members = {key: value for key, value in self._members.items() if key != server_id}
            if firewall_ids:
                members[server_id] = tuple(firewall_ids)
            self._change(self._firewalls, members)

    def replace(self, firewalls: Sequence[FirewallSpec], members: Mapping[int, Sequence[int]]) -> None:
        """Load exactly these firewalls, whatever is loaded now."""
        with self._lock:
            self._change(
                {spec.firewall_id: spec for spec in firewalls},
                {key: tuple(value) for key, value in members.items() if value},
            )

    def _change(self, firewalls: dict[int, FirewallSpec], members: dict[int, tuple[int, ...]]) -> None:
        run(["ip", "netns", "exec", self._namespace, "nft", "-f", "-"], render(firewalls, members, self._resolvers))
        self._firewalls, self._members = firewalls, members
