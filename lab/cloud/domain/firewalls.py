from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lab.cloud.domain import actions
from lab.cloud.domain.common import require_unique_name
from lab.cloud.domain.objects import Action, Firewall, Rule, Server
from lab.cloud.domain.view import View
from lab.cloud.errors import (
    FirewallAlreadyApplied,
    FirewallManagedByLabelSelector,
    FirewallResourceNotFound,
    PrivateNetOnlyServer,
    ResourceInUse,
    ResourceLimitExceeded,
    ServerAlreadyAdded,
)
from lab.cloud.store import Transaction
from lab.cloud.wire.firewalls import Create, RuleBody, Target, split

FIREWALLS, FIREWALLS_A_SERVER = 50, 5


def create(tx: Transaction, body: Create) -> tuple[Firewall, list[Action]]:
    require_unique_name(tx, Firewall, body.name)
    if len(tx.all(Firewall)) >= FIREWALLS:
        raise ResourceLimitExceeded("firewall_limit")
    firewall = tx.put(
        Firewall(id=tx.new_id(), created=tx.now, name=body.name, labels=body.labels, rules=_rules(body.rules))
    )
    started = [_sync_rules(tx, firewall)]
    if body.apply_to:
        servers, _ = split(body.apply_to)
        if len(set(servers)) < len(servers):
            raise ServerAlreadyAdded("server was applied more than once")
        firewall, more = apply(tx, firewall, body.apply_to)
        started += more
    return firewall, started


def delete(tx: Transaction, firewall: Firewall) -> None:
    if firewall.servers or firewall.selectors:
        raise ResourceInUse(f"firewall with ID {firewall.id} is still in use")
    tx.drop(firewall)
    actions.enqueue(tx, "sync_firewall", firewall)


def set_rules(tx: Transaction, firewall: Firewall, rules: Iterable[RuleBody]) -> list[Action]:
    actions.require_idle(tx, firewall)
    return [_sync_rules(tx, tx.put(replace(firewall, rules=_rules(rules))))]


def apply(tx: Transaction, firewall: Firewall, targets: Iterable[Target]) -> tuple[Firewall, list[Action]]:
    ids, selectors = split(targets)
    view, servers = View(tx), _servers(tx, ids)
    for server in servers:
        if not view.ips(server):
            raise PrivateNetOnlyServer("server has no public network interface")
        if server.id in firewall.servers:
            raise FirewallAlreadyApplied(f"firewall is already applied to server {server.name}")
        if len(view.firewalls(server)) >= FIREWALLS_A_SERVER:
            raise ResourceLimitExceeded("server_firewall_limit", f"a server has {FIREWALLS_A_SERVER} firewalls at most")
    for selector in selectors:
        if selector in firewall.selectors:
            raise FirewallAlreadyApplied(f"firewall is already applied to label selector {selector}")
    firewall = tx.put(
        replace(
            firewall,
            servers=(*firewall.servers, *(server.id for server in servers)),
            selectors=(*firewall.selectors, *selectors),
        )
    )
    return firewall, _filter(tx, "apply_firewall", firewall, servers, selectors)


def remove(tx: Transaction, firewall: Firewall, targets: Iterable[Target]) -> list[Action]:
    ids, selectors = split(targets)
    view, servers = View(tx), _servers(tx, ids)
    for server in servers:
        if server.id not in firewall.servers:
            if firewall.id in view.firewalls(server):
                raise FirewallManagedByLabelSelector(f"server {server.name} is managed by a label selector")
            raise FirewallResourceNotFound(f"firewall is not applied to server {server.name}")
    for selector in selectors:
        if selector not in firewall.selectors:
            raise FirewallResourceNotFound(f"firewall is not applied to label selector {selector}")
    firewall = tx.put(
        replace(
            firewall,
            servers=tuple(id for id in firewall.servers if id not in ids),
            selectors=tuple(selector for selector in firewall.selectors if selector not in selectors),
        )
    )
    return _filter(tx, "remove_firewall", firewall, servers, selectors)


def refilter(tx: Transaction, server: Server) -> None:
    """Update the host's filter after a change of the server's labels or addresses."""
    actions.enqueue(tx, "filter_host", server, share=_shared(tx, View(tx).firewalls(server)))


def remove_server(tx: Transaction, server: Server) -> None:
    """Remove a deleted server from all firewalls."""
    for firewall in tx.all(Firewall):
        if server.id in firewall.servers:
            tx.put(replace(firewall, servers=tuple(id for id in firewall.servers if id != server.id)))


def _filter(
    tx: Transaction, command: str, firewall: Firewall, servers: list[Server], selectors: list[str]
) -> list[Action]:
    view = View(tx)
    matched = {server.id: server for selector in selectors for server in view.matching(selector)}
    for server in servers:
        matched[server.id] = server
    if not matched:
        return [actions.done(tx, command, firewall)]
    return [
        actions.start(
            tx,
            command,
            server,
            firewall,
            work="filter_host",
            share=[firewall, *_shared(tx, view.firewalls(server))],
            locking=False,
        )
        for server in matched.values()
    ]


def _shared(tx: Transaction, ids: Iterable[int]) -> list[Firewall]:
    return [firewall for id in ids if (firewall := tx.get(Firewall, id))]


def _sync_rules(tx: Transaction, firewall: Firewall) -> Action:
    return actions.start(tx, "set_firewall_rules", firewall, work="sync_firewall", locking=False)


def _servers(tx: Transaction, ids: Iterable[int]) -> list[Server]:
    servers = []
    for id in dict.fromkeys(ids):
        server = tx.get(Server, id)
        if server is None:
            raise FirewallResourceNotFound(f"server with ID '{id}' not found")
        servers.append(server)
    return servers


def _rules(bodies: Iterable[RuleBody]) -> tuple[Rule, ...]:
    """As at Hetzner: inbound rules first, each direction in the order of the request."""
    return tuple(
        Rule(
            direction=body.direction,
            protocol=body.protocol,
            port=body.port,
            source_ips=tuple(body.source_ips),
            destination_ips=tuple(body.destination_ips),
            description=body.description,
        )
        for body in sorted(bodies, key=lambda body: body.direction)
    )
