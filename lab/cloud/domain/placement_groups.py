from __future__ import annotations

from dataclasses import replace

from lab.cloud.domain.common import require_unique_name
from lab.cloud.domain.objects import PlacementGroup, Server
from lab.cloud.errors import PlacementError, ResourceLimitExceeded
from lab.cloud.store import Transaction
from lab.cloud.wire.placement_groups import Create

SERVERS = 10
GROUPS = 50


def create(tx: Transaction, body: Create) -> PlacementGroup:
    require_unique_name(tx, PlacementGroup, body.name)
    if len(tx.all(PlacementGroup)) >= GROUPS:
        raise ResourceLimitExceeded("placement_group_limit")
    return tx.put(PlacementGroup(id=tx.new_id(), created=tx.now, name=body.name, labels=body.labels, type=body.type))


def delete(tx: Transaction, group: PlacementGroup) -> None:
    for server in _members(tx, group):
        tx.put(replace(server, placement_group=None))
    tx.drop(group)


def require_room(tx: Transaction, group: PlacementGroup) -> None:
    if len(_members(tx, group)) >= SERVERS:
        raise PlacementError(f"placement group {group.name} has {SERVERS} servers, the maximum of a spread group")


def _members(tx: Transaction, group: PlacementGroup) -> list[Server]:
    return [server for server in tx.all(Server) if server.placement_group == group.id]
