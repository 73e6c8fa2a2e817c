from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from lab.cloud.catalogue import LOCATIONS
from lab.cloud.domain import actions
from lab.cloud.domain.common import relabel, require_unique_name
from lab.cloud.domain.objects import Action, Attachment, LoadBalancer, Network, NetworkRoute, Server, Subnet
from lab.cloud.errors import (
    InvalidInput,
    IpNotAvailable,
    NetworksOverlap,
    NoSubnetAvailable,
    Protected,
    ResourceLimitExceeded,
    ServerAlreadyAttached,
    ServiceError,
)
from lab.cloud.store import Transaction
from lab.cloud.wire.networks import AddSubnet, Create, Route, Update

PRIVATE = tuple(IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
EVERYWHERE = IPv4Network("0.0.0.0/0")
PUBLIC_GATEWAY = IPv4Address("172.31.1.1")
SUBNETS, ROUTES, NETWORKS_A_SERVER, ALIASES, MEMBERS = 50, 100, 3, 5, 100


def create(tx: Transaction, body: Create) -> Network:
    ip_range = _range("ip_range", body.ip_range, longest=24)
    require_unique_name(tx, Network, body.name)
    network = Network(
        id=tx.new_id(),
        created=tx.now,
        name=body.name,
        labels=body.labels,
        ip_range=str(ip_range),
        expose_routes_to_vswitch=body.expose_routes_to_vswitch,
    )
    for subnet in body.subnets:
        network = _with_subnet(network, subnet)
    for route in body.routes:
        network = _with_route(network, route)
    actions.enqueue(tx, "sync_network", network)
    return tx.put(network)


def update(tx: Transaction, network: Network, body: Update) -> Network:
    actions.require_idle(tx, network)
    network = relabel(tx, network, body.name, body.labels)
    if body.expose_routes_to_vswitch is not None:
        network = replace(network, expose_routes_to_vswitch=body.expose_routes_to_vswitch)
    actions.enqueue(tx, "sync_network", network)
    return tx.put(network)


def delete(tx: Transaction, network: Network) -> None:
    actions.require_idle(tx, network)
    if network.protected:
        raise Protected("network is delete protected")
    for server in tx.all(Server):
        if server.attachment(network.id):
            _drop_attachment(tx, server, network)
            actions.enqueue(tx, "sync_attachment", server, network, share=[network])
    for balancer in tx.all(LoadBalancer):
        if balancer.attachment(network.id):
            balancer = tx.put(replace(balancer, attachments=()))
            actions.enqueue(tx, "sync_load_balancer", balancer, share=[network])
    tx.drop(network)
    actions.enqueue(tx, "sync_network", network)


def add_subnet(tx: Transaction, network: Network, body: AddSubnet) -> Action:
    actions.require_idle(tx, network)
    tx.put(_with_subnet(network, body))
    return actions.done(tx, "add_subnet", network)


def delete_subnet(tx: Transaction, network: Network, ip_range: str) -> Action:
    actions.require_idle(tx, network)
    removed = _subnet(network, ip_range)
    if removed is None:
        raise InvalidInput.field("ip_range", f"{ip_range} is not a subnet of this network")
    inside = IPv4Network(removed.ip_range)
    if any(ip in inside for member in _members(tx, network) for ip in _addresses(member)):
        raise ServiceError("cannot remove subnet because servers are attached to it")
    tx.put(replace(network, subnets=tuple(subnet for subnet in network.subnets if subnet is not removed)))
    return actions.done(tx, "delete_subnet", network)


def add_route(tx: Transaction, network: Network, body: Route) -> Action:
    actions.require_idle(tx, network)
    network = tx.put(_with_route(network, body))
    return actions.start(tx, "add_route", network, work="sync_network")


def delete_route(tx: Transaction, network: Network, body: Route) -> Action:
    actions.require_idle(tx, network)
    removed = NetworkRoute(body.destination, body.gateway)
    if removed not in network.routes:
        raise InvalidInput.field(
            "destination", f"{removed.destination} via {removed.gateway} is not a route of this network"
        )
    network = tx.put(replace(network, routes=tuple(route for route in network.routes if route != removed)))
    return actions.start(tx, "delete_route", network, work="sync_network")


def change_ip_range(tx: Transaction, network: Network, text: str) -> Action:
    actions.require_idle(tx, network)
    old, new = IPv4Network(network.ip_range), _range("ip_range", text, longest=24)
    if new.network_address != old.network_address or new.prefixlen > old.prefixlen:
        raise InvalidInput.field("ip_range", f"{new} must start at the address of {old} and be at least as large")
    network = tx.put(replace(network, ip_range=str(new)))
    return actions.start(tx, "change_ip_range", network, work="sync_network")


def change_protection(tx: Transaction, network: Network, delete: bool | None) -> Action:
    actions.require_idle(tx, network)
    tx.put(replace(network, protected=network.protected if delete is None else delete))
    return actions.done(tx, "change_protection", network)


def attach(
    tx: Transaction,
    server: Server,
    network: Network,
    zone: str,
    ip: str | None = None,
    ip_range: str | None = None,
    alias_ips: Iterable[str] = (),
) -> Server:
    """Attach a server to a network with the requested address, or with the first free one of the newest subnet."""
    if server.attachment(network.id):
        raise ServerAlreadyAttached("server is already attached to network")
    if len(server.attachments) >= NETWORKS_A_SERVER:
        raise ResourceLimitExceeded(
            "server_network_limit", f"a server attaches to {NETWORKS_A_SERVER} networks at most"
        )
    for existing in server.attachments:
        other = tx.get(Network, existing.network)
        if other and IPv4Network(other.ip_range).overlaps(IPv4Network(network.ip_range)):
            raise NetworksOverlap(
                f"network IP range overlaps with network {other.name}, which the server is attached to"
            )
    return join(tx, server, network, zone, ip, ip_range, alias_ips)


def join[M: (Server, LoadBalancer)](
    tx: Transaction,
    member: M,
    network: Network,
    zone: str,
    ip: str | None = None,
    ip_range: str | None = None,
    alias_ips: Iterable[str] = (),
) -> M:
    members = _members(tx, network)
    if len(members) >= MEMBERS:
        raise ResourceLimitExceeded("network_attachment_limit", f"a network holds {MEMBERS} resources at most")
    subnets = [subnet for subnet in reversed(network.subnets) if subnet.network_zone == zone]
    if ip_range is not None:
        subnets = [subnet for subnet in subnets if subnet.ip_range == ip_range]
    ranges = [IPv4Network(subnet.ip_range) for subnet in subnets]
    if not ranges:
        where = f"subnet {ip_range}" if ip_range else "subnet"
        raise NoSubnetAvailable(f"network {network.name} has no {where} in network zone {zone}")
    used = {address for other in members for address in _addresses(other)}
    address = _requested(network, ranges, used, "ip", ip) if ip else _first_free(network, ranges, used)
    attachment = Attachment(
        network=network.id,
        ip=str(address),
        mac_address=mac_address("86", tx.new_id()),
        number=min({1, 2, 3} - {other.number for other in member.attachments}),
    )
    attachment = _with_aliases(network, attachment, alias_ips, used | {address})
    return tx.put(replace(member, attachments=(*member.attachments, attachment)))


def change_alias_ips(tx: Transaction, server: Server, network: Network, alias_ips: Iterable[str]) -> Server:
    attachment = _attachment(server, network)
    others = [other for other in _members(tx, network) if other is not attachment]
    used = {address for other in others for address in _addresses(other)} | {IPv4Address(attachment.ip)}
    return _put_attachment(tx, server, _with_aliases(network, attachment, alias_ips, used))


def detach(tx: Transaction, server: Server, network: Network) -> Server:
    _attachment(server, network)
    return _drop_attachment(tx, server, network)


def mac_address(first: str, number: int) -> str:
    return f"{first}:00:00:" + number.to_bytes(8).hex(":")[-8:]


def subnet_of(network: Network, ip: str) -> str | None:
    address = IPv4Address(ip)
    return next((subnet.ip_range for subnet in network.subnets if address in IPv4Network(subnet.ip_range)), None)


def _attachment(server: Server, network: Network) -> Attachment:
    attachment = server.attachment(network.id)
    if attachment is None:
        raise InvalidInput.field("network", "server is not attached to network")
    return attachment


def _put_attachment(tx: Transaction, server: Server, attachment: Attachment) -> Server:
    changed = tuple(attachment if other.network == attachment.network else other for other in server.attachments)
    return tx.put(replace(server, attachments=changed))


def _drop_attachment(tx: Transaction, server: Server, network: Network) -> Server:
    remaining = tuple(other for other in server.attachments if other.network != network.id)
    return tx.put(replace(server, attachments=remaining))


def _members(tx: Transaction, network: Network) -> list[Attachment]:
    """All attachments to the network."""
    members: list[Server | LoadBalancer] = [*tx.all(Server), *tx.all(LoadBalancer)]
    return [attached for member in members if (attached := member.attachment(network.id))]


def _addresses(attachment: Attachment) -> list[IPv4Address]:
    return [IPv4Address(ip) for ip in (attachment.ip, *attachment.alias_ips)]


def _with_aliases(network: Network, attachment: Attachment, ips: Iterable[str], used: set[IPv4Address]) -> Attachment:
    ranges = [IPv4Network(subnet.ip_range) for subnet in network.subnets]
    aliases: list[str] = []
    for ip in ips:
        address = _requested(network, ranges, used, "alias_ips", ip)
        used = used | {address}
        aliases.append(str(address))
    if len(aliases) > ALIASES:
        raise InvalidInput.field("alias_ips", f"a server has {ALIASES} alias IPs in a network at most")
    return replace(attachment, alias_ips=tuple(aliases))


def _requested(
    network: Network, ranges: list[IPv4Network], used: set[IPv4Address], field: str, text: str
) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise InvalidInput.field(field, f"{text!r} is not an IPv4 address") from None
    if address in used:
        raise IpNotAvailable(f"ip {address} is already used in network {network.name}")
    if not any(_usable(network, inside, address) for inside in ranges):
        raise IpNotAvailable(f"ip {address} is outside the subnets of network {network.name} or reserved")
    return address


def _first_free(network: Network, ranges: list[IPv4Network], used: set[IPv4Address]) -> IPv4Address:
    for inside in ranges:
        for address in inside.hosts():
            if address not in used and _usable(network, inside, address):
                return address
    raise NoSubnetAvailable(f"no free address in the subnets of network {network.name}")


def _usable(network: Network, inside: IPv4Network, address: IPv4Address) -> bool:
    reserved = {inside[0], inside[-1], IPv4Address(network.gateway), PUBLIC_GATEWAY}
    return address in inside and address not in reserved


def _range(field: str, text: str, longest: int) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InvalidInput.field(field, f"{text!r} is not an IPv4 network such as 10.0.0.0/16") from None
    if not any(network.subnet_of(block) for block in PRIVATE):
        raise InvalidInput.field(field, f"{network} is not inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    if network.prefixlen > longest:
        raise InvalidInput.field(field, f"{network} is too small: /{longest} or larger")
    return network


def _subnet(network: Network, ip_range: str) -> Subnet | None:
    return next((subnet for subnet in network.subnets if subnet.ip_range == ip_range), None)


def _taken(network: Network) -> list[IPv4Network]:
    """Ranges of subnets and destinations of routes, which never overlap; without the default route."""
    destinations = [IPv4Network(route.destination) for route in network.routes]
    return [IPv4Network(subnet.ip_range) for subnet in network.subnets] + [
        destination for destination in destinations if destination != EVERYWHERE
    ]


def _with_subnet(network: Network, body: AddSubnet) -> Network:
    if body.type == "vswitch":
        raise ServiceError("vswitch not found")
    if body.vswitch_id is not None:
        raise InvalidInput.field("vswitch_id", "is only allowed with type vswitch")
    if body.network_zone not in {location.network_zone for location in LOCATIONS}:
        raise InvalidInput.field("network_zone", f"{body.network_zone!r} is not a network zone")
    zone = next((subnet.network_zone for subnet in network.subnets), body.network_zone)
    if body.network_zone != zone:
        raise InvalidInput.field("network_zone", f"all subnets of a network must be in one zone: {zone}")
    if len(network.subnets) >= SUBNETS:
        raise ResourceLimitExceeded("subnet_limit", f"a network holds {SUBNETS} subnets at most")
    parent, taken = IPv4Network(network.ip_range), _taken(network)
    if body.ip_range is None:
        free = (
            inside for inside in parent.subnets(new_prefix=24) if not any(inside.overlaps(other) for other in taken)
        )
        ip_range = next(free, None)
        if ip_range is None:
            raise InvalidInput.field("ip_range", f"no free /24 in {parent}")
    else:
        ip_range = _range("ip_range", body.ip_range, longest=30)
        if not ip_range.subnet_of(parent):
            raise InvalidInput.field("ip_range", f"{ip_range} is not inside the network's {parent}")
        if clash := next((other for other in taken if ip_range.overlaps(other)), None):
            raise InvalidInput.field("ip_range", f"{ip_range} overlaps with {clash}")
    return replace(network, subnets=(*network.subnets, Subnet(body.type, str(ip_range), body.network_zone)))


def _with_route(network: Network, body: Route) -> Network:
    if body.destination == str(EVERYWHERE):
        destination = EVERYWHERE
        clash = next((route.destination for route in network.routes if route.destination == body.destination), None)
    else:
        destination = _range("destination", body.destination, longest=32)
        clash = next((str(other) for other in _taken(network) if destination.overlaps(other)), None)
    if clash is not None:
        raise InvalidInput.field("destination", f"{destination} overlaps with {clash}")
    try:
        gateway = IPv4Address(body.gateway)
    except AddressValueError:
        raise InvalidInput.field("gateway", f"{body.gateway!r} is not an IPv4 address") from None
    parent = IPv4Network(network.ip_range)
    if gateway not in parent or gateway in (parent[1], PUBLIC_GATEWAY):
        raise InvalidInput.field(
            "gateway", f"{gateway} must be inside {parent}, neither {parent[1]} nor {PUBLIC_GATEWAY}"
        )
    if len(network.routes) >= ROUTES:
        raise ResourceLimitExceeded("route_limit", f"a network holds {ROUTES} routes at most")
    return replace(network, routes=(*network.routes, NetworkRoute(str(destination), str(gateway))))
