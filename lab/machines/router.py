"""The lab's internet: a router namespace between this machine and the public link of every host.

machine  <lab>-up ══ uplink  <lab>-router  p<id> ══ eth0  <lab>-h<id>
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from lab.machines import namespaces
from lab.machines.base import HostSpec, MachineError
from lab.machines.commands import run, succeeds
from lab.settings import Settings

GATEWAY = "172.31.1.1"
METADATA = "169.254.169.254"
UPLINK = "uplink"
IPV6 = Path("/proc/sys/net/ipv6")
BLACKHOLE = "blackhole"
UNREACHABLE = "unreachable"
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/default/rp_filter": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/default/accept_dad": "0",
}


@dataclass(frozen=True, slots=True)
class PublicLink:
    """The public side of one host."""

    server_id: int
    mac: str
    ipv4: str | None
    ipv6_network: str | None
    floating_ips: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: HostSpec) -> PublicLink | None:
        """None for a host without public addresses, which has no public link."""
        if spec.ipv4 is None and spec.ipv6_network is None:
            return None
        mac = spec.public_mac or f"96:00:00:{spec.server_id >> 16 & 255:02x}:{spec.server_id >> 8 & 255:02x}:" + (
            f"{spec.server_id & 255:02x}"
        )
        return cls(spec.server_id, mac, spec.ipv4, spec.ipv6_network, spec.floating_ips)

    @property
    def port(self) -> str:
        """Name of the router's end."""
        return f"p{self.server_id}"

    @property
    def source(self) -> str:
        """The IPv4 source address of the host; link-local without a public one, since metadata needs IPv4."""
        if self.ipv4:
            return self.ipv4
        number = self.server_id % 0xFE00 + 0x100
        if number == 0xA9FE:
            number = 0xFFFE
        return str(IPv4Address("169.254.0.0") + number)

    @property
    def routed(self) -> list[str]:
        """The networks that the router routes to the host."""
        primary = [f"{self.source}/32", *([self.ipv6_network] if self.ipv6_network else [])]
        return primary + [str(ip_network(address)) for address in self.floating_ips]

    def router_lines(self, host_namespace: str) -> list[str]:
        peer = f"peer name eth0 mtu 1500 netns {host_namespace} address {self.mac}"
        return [
            f"link add {self.port} mtu 1500 type veth {peer}",
            f"link set {self.port} addrgenmode none",
            f"link set {self.port} up",
            f"addr add fe80::1/64 dev {self.port} nodad",
        ]

    def host_lines(self) -> list[str]:
        lines = ["link set lo up", "link set eth0 up"]
        if self.ipv4:
            lines += [
                f"addr replace {self.ipv4}/32 dev eth0",
                f"route replace {GATEWAY} dev eth0 scope link",
                f"route replace default via {GATEWAY} dev eth0",
            ]
        else:
            lines += [
                f"addr replace {self.source}/32 dev eth0 scope link",
                f"route replace {METADATA} dev eth0 scope link",
            ]
        if self.ipv6_network:
            address = IPv6Interface((IPv6Network(self.ipv6_network)[1], 64))
            lines += [f"addr replace {address} dev eth0 nodad", "route replace ::/0 via fe80::1 dev eth0"]
        return lines


def routes(links: Iterable[PublicLink], plugged: set[int]) -> dict[str, str]:
    """The router's routes to hosts: destination → arguments of `ip route`. Hosts that are off get a blackhole."""
    return {
        target: f"dev {link.port}" if link.server_id in plugged else BLACKHOLE
        for link in links
        for target in link.routed
    }


def host_routes(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The routes of `ip -json route show` that `routes` manages."""
    table = {}
    for row in rows:
        kind = row.get("type", "unicast")
        if kind == BLACKHOLE:
            table[str(ip_network(row["dst"]))] = BLACKHOLE
        elif kind == "unicast" and row.get("dev", "").startswith("p") and not row["dst"].startswith("fe80:"):
            table[str(ip_network(row["dst"]))] = f"dev {row['dev']}"
    return table


def route_changes(current: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """`ip` commands that turn the current table into the wanted one."""
    lines = []
    for destination, how in wanted.items():
        if current.get(destination) != how:
            if destination in current and ":" in destination:
                # In IPv6 `replace` adds a blackhole beside a route instead of replacing it.
                lines.append(f"route flush exact {destination}")
            special = how in (BLACKHOLE, UNREACHABLE)
            lines.append(f"route replace {how} {destination}" if special else f"route replace {destination} {how}")
    lines += [f"route flush exact {destination}" for destination in current if destination not in wanted]
    return lines


class Router:
    """The router namespace, the uplink and the public links."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._known: dict[int, PublicLink] = {}
        self._plugged: set[int] = set()

    @property
    def namespace(self) -> str:
        return self._settings.router_namespace

    @property
    def table(self) -> str:
        """Name of the lab's nftables table in the machine's namespace."""
        return f"slipway_{self._settings.name}"

    def ensure(self) -> list[str]:
        """Create router and uplink if missing; returns the changes."""
        made = []
        if not IPV6.exists():
            raise MachineError("IPv6 is disabled in this machine's kernel. Boot without ipv6.disable=1.")
        with self._lock:
            if namespaces.ensure(self.namespace):
                made.append(f"created the router namespace {self.namespace}")
                namespaces.write_sysctls(self.namespace, SYSCTLS)
                namespaces.batch(
                    self.namespace,
                    [
                        "link set lo up",
                        f"addr replace {GATEWAY}/32 dev lo",
                        f"addr replace {METADATA}/32 dev lo scope link",
                        f"route replace unreachable {self._settings.public_range}",
                        f"route replace unreachable {self._settings.public_range_v6}",
                        "route replace unreachable ::/0",
                    ],
                )
            if self._settings.uplink_interface not in namespaces.links(None) or UPLINK not in namespaces.links(
                self.namespace
            ):
                made.append(f"created the uplink {self._settings.uplink_interface}")
                self._create_uplink()
            if not succeeds(["nft", "list", "table", "inet", self.table]):
                made.append(f"loaded the machine's table {self.table}")
                run(["nft", "-f", "-"], stdin=self.machine_rules())
            self._pass_through_docker()
        return made

    def machine_rules(self) -> str:
        """Address translation for hosts; new connections into the lab (from outside, from other labs) are dropped."""
        up, public = self._settings.uplink_interface, self._settings.public_range
        return (
            f"table inet {self.table} {{\n"
            "  chain translate {\n"
            "    type nat hook postrouting priority 100;\n"
            f'    ip saddr {public} oifname != "{up}" masquerade\n'
            "  }\n"
            "  chain guard {\n"
            "    type filter hook forward priority 0;\n"
            f'    oifname "{up}" ct state established,related accept\n'
            f'    oifname "{up}" drop\n'
            "  }\n"
            "}\n"
        )

    def _uplink_v6(self, number: int) -> IPv6Address:
        """An address in the last /64 of the lab's range, which is the uplink's."""
        return self._settings.public_range_v6[0xFFFF << 64 | number]

    def _create_uplink(self) -> None:
        settings = self._settings
        up = settings.uplink_interface
        namespaces.clear_link(None, up)
        namespaces.batch(
            None,
            [
                f"link add {up} type veth peer name {UPLINK} netns {self.namespace}",
            ],
        )
        # Many machines disable IPv6 on all links; the lab needs it on this one.
        (IPV6 / "conf" / up / "disable_ipv6").write_text("0")
        namespaces.batch(
            None,
            [
                f"addr add {settings.machine_address}/{settings.uplink_network.prefixlen} dev {up}",
                f"addr add {self._uplink_v6(1)}/64 dev {up} nodad",
                f"link set {up} up",
            ],
        )
        namespaces.batch(
            self.namespace,
            [
                f"addr add {settings.router_address}/{settings.uplink_network.prefixlen} dev {UPLINK}",
                f"addr add {self._uplink_v6(2)}/64 dev {UPLINK} nodad",
                f"link set {UPLINK} up",
                f"route replace default via {settings.machine_address} dev {UPLINK}",
            ],
        )
        namespaces.batch(
            None,
            [
                f"route replace {settings.public_range} via {settings.router_address} dev {up}"
                f" src {settings.machine_address}",
                f"route replace {settings.public_range_v6} via {self._uplink_v6(2)} dev {up}",
            ],
        )

    def _docker_rules(self) -> list[list[str]]:
        up = self._settings.uplink_interface
        return [["FORWARD", f"--{side}-interface", up, "--jump", "ACCEPT"] for side in ("in", "out")]

    def _pass_through_docker(self) -> None:
        """Docker sets the machine's forward policy to drop, which an accept in another table does not override."""
        if not succeeds(["sh", "-c", "iptables --wait -S FORWARD 2>/dev/null | grep -q '^-P FORWARD DROP'"]):
            return
        for rule in self._docker_rules():
            if not succeeds(["iptables", "--wait", "--check", *rule]):
                run(["iptables", "--wait", "--insert", *rule])

    # hosts
    def set_link(self, link: PublicLink | None, server_id: int) -> None:
        """Set or, with None, remove the public link of a host."""
        with self._lock:
            if link is None:
                self._known.pop(server_id, None)
            else:
                self._known[server_id] = link
            self._route()

    def load(self, links: Iterable[PublicLink], plugged: set[int]) -> list[str]:
        """Converge to the given links; returns the changes."""
        with self._lock:
            self._known = {link.server_id: link for link in links}
            self._plugged = set(plugged)
            changes = self._route()
        return [f"corrected {len(changes)} public routes"] if changes else []

    def open(self, server_id: int, host_namespace: str) -> bool:
        """Create the host's public link; True when it had none."""
        with self._lock:
            self._plugged.add(server_id)
            link = self._known.get(server_id)
            if link is None:
                namespaces.batch(host_namespace, ["link set lo up"])
                return False
            made = link.port not in namespaces.links(self.namespace)
            if made:
                namespaces.clear_link(host_namespace, "eth0")
                namespaces.batch(self.namespace, link.router_lines(host_namespace))
                namespaces.batch(host_namespace, link.host_lines())
            self._route()
            return made

    def close(self, server_id: int) -> None:
        """Delete the host's public link."""
        with self._lock:
            self._plugged.discard(server_id)
            if not namespaces.path(self.namespace).exists():
                return
            port = f"p{server_id}"
            if port in namespaces.links(self.namespace):
                succeeds(["ip", "-n", self.namespace, "link", "set", port, "down"])
                self._route()
                namespaces.clear_link(self.namespace, port)
            else:
                self._route()

    def remove_host(self, server_id: int) -> None:
        with self._lock:
            self._known.pop(server_id, None)
            self.close(server_id)

    def _route(self) -> list[str]:
        wanted = routes(self._known.values(), self._plugged)
        done = []
        for family, version in (("-4", 4), ("-6", 6)):
            current = host_routes(namespaces.query(self.namespace, family, "route", "show"))
            here = {target: how for target, how in wanted.items() if ip_network(target).version == version}
            changes = route_changes(current, here)
            namespaces.batch(self.namespace, changes, family)
            done += changes
        return done

    def owner(self, source: str) -> int | None:
        """The server with this address."""
        with self._lock:
            return next((link.server_id for link in self._known.values() if link.source == source), None)

    def ports(self) -> set[int]:
        """Ids of the servers that have a public link."""
        if self.namespace not in namespaces.existing():
            return set()
        names = namespaces.links(self.namespace)
        return {int(name[1:]) for name in names if name.startswith("p") and name[1:].isdecimal()}

    def destroy(self) -> None:
        with self._lock:
            self._known.clear()
            namespaces.clear_link(None, self._settings.uplink_interface)
            run(["nft", "-f", "-"], stdin=f"table inet {self.table}\ndelete table inet {self.table}\n")
            for rule in self._docker_rules():
                while succeeds(["sh", "-c", 'iptables --wait -D "$@" 2>/dev/null', "sh", *rule]):
                    pass
            namespaces.delete(self.namespace)
