from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network, ip_interface

from lab.cloud.catalogue import LOCATIONS, Location, find
from lab.cloud.domain import actions, firewalls
from lab.cloud.domain.common import Site, free_address, relabel, require, require_unique_name
from lab.cloud.domain.objects import Action, FloatingIp, Labels, PrimaryIp, Server
from lab.cloud.domain.view import View
from lab.cloud.errors import (
    InvalidInput,
    MustBeUnassigned,
    NotFound,
    PrimaryIpAlreadyAssigned,
    PrimaryIpDatacenterMismatch,
    Protected,
    ServerHasIpv4,
    ServerHasIpv6,
    ServerNotStopped,
)
from lab.cloud.store import Transaction
from lab.cloud.wire.primary_ips import Create, Update


def create(tx: Transaction, site: Site, body: Create) -> tuple[PrimaryIp, Action | None]:
    server = require(tx, Server, body.assignee_id) if body.assignee_id is not None else None
    location = find(LOCATIONS, body.location) if body.location is not None else None
    if body.location is not None and location is None:
        raise NotFound.of("location", body.location)
    if server is not None:
        if location is not None and location.id != server.location:
            raise PrimaryIpDatacenterMismatch("primary IP and server are in different locations")
        location = find(LOCATIONS, server.location)
    if location is None:
        raise InvalidInput.fields([(name, "set a location or an assignee_id") for name in ("location", "assignee_id")])
    ip = allocate(tx, site, body.type, location, body.name, body.labels, body.auto_delete)
    return (ip, None) if server is None else (ip, assign(tx, ip, server))


def allocate(
    tx: Transaction,
    site: Site,
    type: str,
    location: Location,
    name: str | None = None,
    labels: Labels | None = None,
    auto_delete: bool = True,
) -> PrimaryIp:
    """A new address; an address created with a server is named after its id and deleted with the server."""
    id = tx.new_id()
    name = name or f"primary_ip-{id}"
    require_unique_name(tx, PrimaryIp, name)
    address = free_address(tx, site, type)
    return tx.put(
        PrimaryIp(
            id=id,
            created=tx.now,
            name=name,
            labels=labels or {},
            type=type,
            ip=address,
            location=location.id,
            auto_delete=auto_delete,
            dns_ptr={address: default_ptr(address)} if type == "ipv4" else {},
        )
    )


def default_ptr(address: str) -> str:
    """The name of an IPv4 address without a name of its own, as at Hetzner."""
    return f"static.{'.'.join(reversed(address.split('.')))}.clients.your-server.de"


def update(tx: Transaction, ip: PrimaryIp, body: Update) -> PrimaryIp:
    ip = relabel(tx, ip, body.name, body.labels)
    if body.auto_delete is not None:
        ip = tx.put(replace(ip, auto_delete=body.auto_delete))
    return ip


def delete(tx: Transaction, ip: PrimaryIp) -> None:
    actions.require_unlocked(tx, ip)
    if ip.protected:
        raise Protected("Primary IP deletion is protected")
    if ip.server is not None or ip.load_balancer is not None:
        raise MustBeUnassigned("Primary IP must be unassigned before it can be deleted")
    tx.drop(ip)


def assign(tx: Transaction, ip: PrimaryIp, server: Server) -> Action:
    actions.require_unlocked(tx, ip, server)
    if ip.server is not None or ip.load_balancer is not None:
        raise PrimaryIpAlreadyAssigned("Primary IP is already assigned")
    if ip.location != server.location:
        raise PrimaryIpDatacenterMismatch("primary IP and server are in different locations")
    if View(tx).ip(server, ip.type):
        raise (ServerHasIpv4 if ip.type == "ipv4" else ServerHasIpv6)(f"server already has an {ip.type} address")
    _require_off(server)
    tx.put(replace(ip, server=server.id))
    action = actions.start(tx, "assign_primary_ip", ip, server, hold=[address_key(ip)], work="link_host")
    firewalls.refilter(tx, server)
    return action


def unassign(tx: Transaction, ip: PrimaryIp) -> Action:
    server = tx.get(Server, ip.server)
    if server is None:
        raise InvalidInput("Primary IP is not assigned")
    actions.require_unlocked(tx, ip, server)
    _require_off(server)
    tx.put(replace(ip, server=None))
    return actions.start(tx, "unassign_primary_ip", ip, server, hold=[address_key(ip)], work="link_host")


def change_protection(tx: Transaction, ip: PrimaryIp, delete: bool | None) -> Action:
    protected = ip.protected if delete is None else delete
    if protected and ip.auto_delete:
        raise InvalidInput.field("delete", "protection requires auto_delete: false")
    tx.put(replace(ip, protected=protected))
    return actions.done(tx, "change_protection", ip)


def change_dns_ptr(tx: Transaction, ip: PrimaryIp, address: str, name: str | None) -> Action:
    tx.put(with_ptr(ip, address, name))
    return actions.done(tx, "change_dns_ptr", ip)


def with_ptr[Ip: (PrimaryIp, FloatingIp)](ip: Ip, address: str, name: str | None) -> Ip:
    """Set the reverse name; None resets that of IPv4 and removes that of IPv6."""
    if not owns(ip, address):
        raise InvalidInput.field("ip", f"{address!r} does not belong to {ip.ip}")
    if ip.type == "ipv4":
        return replace(ip, dns_ptr={address: name or default_ptr(address)})
    key = str(IPv6Address(address))
    rest = {other: old for other, old in ip.dns_ptr.items() if other != key}
    return replace(ip, dns_ptr=rest | ({key: name} if name else {}))


def owns(ip: PrimaryIp | FloatingIp, address: str) -> bool:
    if ip.type == "ipv4":
        return ip.ip == address
    try:
        return IPv6Address(address) in IPv6Network(ip.ip)
    except ValueError:
        return False


def is_named(ip: PrimaryIp, text: str) -> bool:
    """Whether the text is the address, for IPv6 in any notation, with or without the prefix length."""
    try:
        return ip_interface(text) in (ip_interface(ip.ip), ip_interface(ip.ip.partition("/")[0]))
    except ValueError:
        return False


def address_key(ip: PrimaryIp) -> str:
    """Jobs hold the address itself, so that the next host with it waits for the previous one."""
    return f"address:{ip.ip}"


def _require_off(server: Server) -> None:
    if server.status != "off":
        raise ServerNotStopped
