"""Private networks: one namespace each, with the gateway and a routed link to every member; no shared segment.

    <lab>-n<network>  v<id> ══ enp7s0  <lab>-h<id>

Two networks may have the same range: they are not connected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Any

from lab.machines import namespaces
from lab.machines.base import AttachmentSpec, MachineError, NetworkSpec
from lab.machines.router import BLACKHOLE, METADATA, UNREACHABLE, route_changes
from lab.settings import Settings

MTU = 1450
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/default/rp_filter": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


def gateway(ip_range: str) -> str:
    return str(IPv4Network(ip_range)[1])


def port(server_id: int) -> str:
    return f"v{server_id}"


def routes(network: NetworkSpec, members: Iterable[AttachmentSpec], plugged: set[int]) -> dict[str, str]:
    """The routing table of a network: destination → arguments of `ip route`.

    Packets to members that are off are dropped, and so are those to routes with a gateway that is off; a route through
    an address without a member is unreachable.
    """
    table = {str(IPv4Network(network.ip_range)): UNREACHABLE}
    owners: dict[str, int] = {}
    for member in members:
        for address in (member.ip, *member.alias_ips):
            owners[address] = member.server_id
            up = member.server_id in plugged
            table[f"{address}/32"] = f"dev {port(member.server_id)}" if up else BLACKHOLE
    for route in network.routes:
        destination = str(IPv4Network(route.destination))
        owner = owners.get(route.gateway)
        if owner is None:
            table[destination] = UNREACHABLE
        elif owner in plugged:
            table[destination] = f"via {route.gateway} dev {port(owner)} onlink"
        else:
            table[destination] = BLACKHOLE
    return table


def parse_routes(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The output of `ip -json route show` in the format of `routes`."""
    table = {}
    for row in rows:
        destination = "0.0.0.0/0" if row["dst"] == "default" else str(IPv4Network(row["dst"]))
        if row.get("type") in (UNREACHABLE, BLACKHOLE):
            table[destination] = row["type"]
        elif "gateway" in row:
            table[destination] = f"via {row['gateway']} dev {row['dev']} onlink"
        else:
            table[destination] = f"dev {row['dev']}"
    return table


def host_lines(network: NetworkSpec, member: AttachmentSpec, private_only: bool) -> list[str]:
    """The member's end of the link. `private_only`: without a public link, metadata is reached through this network."""
    nic, via = member.interface, gateway(network.ip_range)
    return [
        f"link set {nic} addrgenmode none",
        f"link set {nic} up",
        f"addr replace {member.ip}/32 dev {nic}",
        f"route replace {via} dev {nic} scope link",
        f"route replace {network.ip_range} via {via} dev {nic}",
        *([f"route replace {METADATA} via {via} dev {nic}"] if private_only else []),
    ]


class Networks:
    """The namespaces of the private networks and their links to members."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._specs: dict[int, NetworkSpec] = {}
        self._members: dict[int, dict[int, AttachmentSpec]] = {}
        self._plugged: set[int] = set()
        self._private_only: set[int] = set()

    def namespace(self, network_id: int) -> str:
        return self._settings.network_namespace(network_id)

    def ids(self) -> set[int]:
        return set(self._specs)

    def apply(self, spec: NetworkSpec) -> bool:
        """Create or update the network; True when its namespace was created."""
        with self._lock:
            old = self._specs.get(spec.network_id)
            was_created = self._ensure(spec, old)
            self._specs[spec.network_id] = spec
            self._members.setdefault(spec.network_id, {})
            self._route(spec.network_id)
            if old and old.ip_range != spec.ip_range:
                for member in self._members[spec.network_id].values():
                    if member.server_id in self._plugged:
                        host = self._settings.host_namespace(member.server_id)
                        namespaces.batch(host, host_lines(spec, member, member.server_id in self._private_only))
            return was_created

    def _ensure(self, spec: NetworkSpec, old: NetworkSpec | None) -> bool:
        name = self.namespace(spec.network_id)
        was_created = namespaces.ensure(name)
        lines = []
        if was_created:
            namespaces.write_sysctls(name, SYSCTLS)
            # Scope link, so that the kernel does not use this address as the source of ARP requests: a host with strict
            # reverse path filtering does not answer those.
            lines += ["link set lo up", f"addr replace {METADATA}/32 dev lo scope link"]
        if old and gateway(old.ip_range) != gateway(spec.ip_range):
            lines.append(f"addr delete {gateway(old.ip_range)}/32 dev lo")
        namespaces.batch(name, [*lines, f"addr replace {gateway(spec.ip_range)}/32 dev lo"])
        return was_created

    def delete(self, network_id: int) -> None:
        with self._lock:
            for server_id in list(self._members.get(network_id, ())):
                self.detach(server_id, network_id)
            self._members.pop(network_id, None)
            self._specs.pop(network_id, None)
            namespaces.delete(self.namespace(network_id))

    def attach(self, spec: AttachmentSpec) -> bool:
        """Attach, or update the alias addresses; True when a running host got a link."""
        with self._lock:
            if spec.network_id not in self._specs:
                raise MachineError(f"network {spec.network_id} does not exist. Create it before servers are attached.")
            members = self._members[spec.network_id]
            old = members.get(spec.server_id)
            if old and (old.ip, old.mac_address, old.interface) != (spec.ip, spec.mac_address, spec.interface):
                self.detach(spec.server_id, spec.network_id)
            members[spec.server_id] = spec
            was_created = spec.server_id in self._plugged and self._plug(spec)
            self._route(spec.network_id)
            return was_created

    def detach(self, server_id: int, network_id: int) -> None:
        with self._lock:
            member = self._members.get(network_id, {}).pop(server_id, None)
            if member is None:
                return
            self._unplug(member)
            self._route(network_id)

    def open(self, server_id: int, private_only: bool) -> list[int]:
        """Create the host's links to all its networks; returns the networks that had none."""
        with self._lock:
            self._plugged.add(server_id)
            (self._private_only.add if private_only else self._private_only.discard)(server_id)
            was_created = []
            for network_id, members in self._members.items():
                if server_id in members:
                    if self._plug(members[server_id]):
                        was_created.append(network_id)
                    self._route(network_id)
            return was_created

    def close(self, server_id: int) -> None:
        with self._lock:
            self._plugged.discard(server_id)
            for network_id, members in self._members.items():
                if server_id in members:
                    self._unplug(members[server_id])
                    self._route(network_id)

    def remove_host(self, server_id: int) -> None:
        with self._lock:
            self._plugged.discard(server_id)
            self._private_only.discard(server_id)
            for network_id in list(self._members):
                self.detach(server_id, network_id)

    def of_host(self, server_id: int) -> list[AttachmentSpec]:
        with self._lock:
            return [members[server_id] for members in self._members.values() if server_id in members]

    def member(self, server_id: int, network_id: int) -> AttachmentSpec | None:
        with self._lock:
            return self._members.get(network_id, {}).get(server_id)

    def owner(self, network_id: int, source: str) -> int | None:
        """The member with this address."""
        with self._lock:
            members = self._members.get(network_id, {}).values()
            return next((item.server_id for item in members if source in (item.ip, *item.alias_ips)), None)

    def _plug(self, member: AttachmentSpec) -> bool:
        name = self.namespace(member.network_id)
        link = port(member.server_id)
        if link in namespaces.links(name):
            return False
        host = self._settings.host_namespace(member.server_id)
        namespaces.clear_link(host, member.interface)
        peer = f"peer name {member.interface} mtu {MTU} netns {host} address {member.mac_address}"
        namespaces.batch(name, [f"link add {link} mtu {MTU} type veth {peer}", f"link set {link} up"])
        network = self._specs[member.network_id]
        namespaces.batch(host, host_lines(network, member, member.server_id in self._private_only))
        return True

    def _unplug(self, member: AttachmentSpec) -> None:
        name, link = self.namespace(member.network_id), port(member.server_id)
        if namespaces.path(name).exists():
            namespaces.clear_link(name, link)

    def load(
        self, specs: Iterable[NetworkSpec], members: Iterable[AttachmentSpec], plugged: set[int], private_only: set[int]
    ) -> list[str]:
        """Converge to the given networks without interrupting what is correct; returns the changes."""
        done = []
        with self._lock:
            self._specs = {spec.network_id: spec for spec in specs}
            self._members = {network_id: {} for network_id in self._specs}
            for member in members:
                self._members[member.network_id][member.server_id] = member
            self._plugged, self._private_only = set(plugged), set(private_only)
            for spec in self._specs.values():
                if self._ensure(spec, None):
                    done.append(f"created the namespace of network {spec.name}")
                for member in self._members[spec.network_id].values():
                    if member.server_id in plugged and self._plug(member):
                        done.append(f"plugged server {member.server_id} into network {spec.name}")
                known = {port(server_id) for server_id in self._members[spec.network_id]}
                unknown = {name for name in namespaces.links(self.namespace(spec.network_id)) if name.startswith("v")}
                for name in sorted(unknown - known):
                    namespaces.clear_link(self.namespace(spec.network_id), name)
                    done.append(f"removed {name} from network {spec.name}")
                if changes := self._route(spec.network_id):
                    done.append(f"corrected {len(changes)} routes of network {spec.name}")
        return done

    def _route(self, network_id: int) -> list[str]:
        name = self.namespace(network_id)
        spec = self._specs.get(network_id)
        if spec is None or not namespaces.path(name).exists():
            return []
        wanted = routes(spec, self._members[network_id].values(), self._plugged)
        current = parse_routes(namespaces.query(name, "-4", "route", "show"))
        changes = route_changes(current, wanted)
        namespaces.batch(name, changes)
        return changes
