from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import volumes
from lab.cloud.domain.common import relabel, require
from lab.cloud.domain.objects import Server, Volume
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire import volumes as wire
from lab.cloud.wire.base import Protection


def routes() -> list[Route]:
    return [
        route("/volumes", list_all),
        route("/volumes", create, "POST"),
        route("/volumes/{id}", get),
        route("/volumes/{id}", update, "PUT"),
        route("/volumes/{id}", delete, "DELETE"),
        route("/volumes/{id}/actions/attach", attach, "POST"),
        route("/volumes/{id}/actions/detach", detach, "POST"),
        route("/volumes/{id}/actions/resize", resize, "POST"),
        route("/volumes/{id}/actions/change_protection", change_protection, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "volumes",
        call.tx.all(Volume),
        lambda volume: wire.shape(call.view, volume),
        equal={"name": lambda volume: volume.name},
        one_of={"status": (lambda volume: volume.status, frozenset({"available", "creating"}))},
    )


def create(call: Call) -> Reply:
    volume, action, following = volumes.create(call.tx, call.body(wire.Create))
    return call.reply_with_action(
        action,
        volume=wire.shape(call.view, volume),
        next_actions=[action_wire.shape(action) for action in following],
    )


def get(call: Call) -> Reply:
    return _shaped(call, call.find(Volume))


def update(call: Call) -> Reply:
    body = call.body(wire.Update)
    return _shaped(call, relabel(call.tx, call.find(Volume), body.name, body.labels))


def delete(call: Call) -> Reply:
    volumes.delete(call.tx, call.find(Volume))
    return Reply(None, 204)


def attach(call: Call) -> Reply:
    volume, body = call.find(Volume), call.body(wire.Attach)
    return call.reply_with_action(
        volumes.attach(call.tx, volume, require(call.tx, Server, body.server), body.automount)
    )


def detach(call: Call) -> Reply:
    return call.reply_with_action(volumes.detach(call.tx, call.find(Volume)))


def resize(call: Call) -> Reply:
    return call.reply_with_action(volumes.resize(call.tx, call.find(Volume), call.body(wire.Resize).size))


def change_protection(call: Call) -> Reply:
    return call.reply_with_action(volumes.change_protection(call.tx, call.find(Volume), call.body(Protection).delete))


def _shaped(call: Call, volume: Volume) -> Reply:
    return Reply({"volume": wire.shape(call.view, volume)})
