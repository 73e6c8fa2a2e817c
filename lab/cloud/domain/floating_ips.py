from __future__ import annotations

from dataclasses import replace

from lab.cloud.catalogue import LOCATIONS, find
from lab.cloud.domain import actions, primary_ips
from lab.cloud.domain.common import Site, free_address, relabel, require, require_unique_name
from lab.cloud.domain.objects import Action, FloatingIp, Server
from lab.cloud.domain.view import View
from lab.cloud.errors import FloatingIpAssigned, InvalidInput, MustBeUnassigned, Protected
from lab.cloud.store import Transaction
from lab.cloud.wire.floating_ips import Create, Update


def create(tx: Transaction, site: Site, body: Create) -> tuple[FloatingIp, Action | None]:
    server = require(tx, Server, body.server) if body.server is not None else None
    location = find(LOCATIONS, server.location if server else body.home_location or "")
    if location is None:
        fields = [{"name": name, "messages": ["set a server or a location"]} for name in ("server", "home_location")]
        raise InvalidInput("invalid input in fields 'server', 'home_location'", {"fields": fields})
    id = tx.new_id()
    name = body.name or f"floating-ip-{id}"
    require_unique_name(tx, FloatingIp, name)
    address = free_address(tx, site, body.type)
    ip = tx.put(
        FloatingIp(
            id=id,
            created=tx.now,
            name=name,
            labels=body.labels,
            type=body.type,
            ip=address,
            location=location.id,
            description=body.description,
            dns_ptr={address: primary_ips.default_ptr(address)} if body.type == "ipv4" else {},
        )
    )
    return (ip, None) if server is None else (ip, assign(tx, ip, server))


def update(tx: Transaction, ip: FloatingIp, body: Update) -> FloatingIp:
    ip = relabel(tx, ip, body.name, body.labels)
    return ip if body.description is None else tx.put(replace(ip, description=body.description))


def delete(tx: Transaction, ip: FloatingIp) -> None:
    actions.require_unlocked(tx, ip)
    if ip.protected:
        raise Protected("Floating IP deletion is protected")
    if ip.server is not None:
        raise MustBeUnassigned("Floating IP must be unassigned before it can be deleted")
    tx.drop(ip)


def assign(tx: Transaction, ip: FloatingIp, server: Server) -> Action:
    """Assign the address to a server of any location; from another server it is moved."""
    actions.require_unlocked(tx, ip, server)
    if ip.server == server.id:
        raise FloatingIpAssigned(f"Floating IP is already assigned to server {server.name}")
    if not View(tx).ips(server):
        raise InvalidInput.field("server", f"{server.name} has no public network interface")
    previous = tx.get(Server, ip.server)
    if previous:
        actions.require_unlocked(tx, previous)
    tx.put(replace(ip, server=server.id))
    hold = [previous.key] if previous else []
    return actions.start(tx, "assign_floating_ip", ip, server, hold=hold, work="route_floating_ip", previous=ip.server)


def unassign(tx: Transaction, ip: FloatingIp) -> Action:
    server = tx.get(Server, ip.server)
    if server is None:
        raise InvalidInput("Floating IP is not assigned")
    actions.require_unlocked(tx, ip, server)
    tx.put(replace(ip, server=None))
    return actions.start(tx, "unassign_floating_ip", ip, server, work="route_floating_ip", previous=server.id)


def change_protection(tx: Transaction, ip: FloatingIp, delete: bool | None) -> Action:
    tx.put(replace(ip, protected=ip.protected if delete is None else delete))
    return actions.done(tx, "change_protection", ip)


def change_dns_ptr(tx: Transaction, ip: FloatingIp, address: str, name: str | None) -> Action:
    tx.put(primary_ips.with_ptr(ip, address, name))
    return actions.done(tx, "change_dns_ptr", ip)
