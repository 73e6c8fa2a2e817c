from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import placement_groups
from lab.cloud.domain.common import relabel
from lab.cloud.domain.objects import PlacementGroup
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import placement_groups as wire
from lab.cloud.wire.base import Update


def routes() -> list[Route]:
    return [
        route("/placement_groups", list_all),
        route("/placement_groups", create, "POST"),
        route("/placement_groups/{id}", get),
        route("/placement_groups/{id}", update, "PUT"),
        route("/placement_groups/{id}", delete, "DELETE"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "placement_groups",
        call.tx.all(PlacementGroup),
        lambda group: wire.shape(call.view, group),
        equal={"name": lambda group: group.name},
        one_of={"type": (lambda group: group.type, frozenset({"spread"}))},
    )


def create(call: Call) -> Reply:
    reply = _shaped(call, placement_groups.create(call.tx, call.body(wire.Create)), 201)
    reply.payload = {**(reply.payload or {}), "action": None}
    return reply


def get(call: Call) -> Reply:
    return _shaped(call, call.find(PlacementGroup))


def update(call: Call) -> Reply:
    body = call.body(Update)
    return _shaped(call, relabel(call.tx, call.find(PlacementGroup), body.name, body.labels))


def delete(call: Call) -> Reply:
    placement_groups.delete(call.tx, call.find(PlacementGroup))
    return Reply(None, 204)


def _shaped(call: Call, group: PlacementGroup, status: int = 200) -> Reply:
    return Reply({"placement_group": wire.shape(call.view, group)}, status)
