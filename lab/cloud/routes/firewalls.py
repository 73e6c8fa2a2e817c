from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import actions, firewalls
from lab.cloud.domain.common import relabel
from lab.cloud.domain.objects import Firewall
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import firewalls as wire
from lab.cloud.wire.base import Update


def routes() -> list[Route]:
    return [
        route("/firewalls", list_all),
        route("/firewalls", create, "POST"),
        route("/firewalls/{id}", get),
        route("/firewalls/{id}", update, "PUT"),
        route("/firewalls/{id}", delete, "DELETE"),
        route("/firewalls/{id}/actions/set_rules", set_rules, "POST"),
        route("/firewalls/{id}/actions/apply_to_resources", apply, "POST"),
        route("/firewalls/{id}/actions/remove_from_resources", remove, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "firewalls",
        call.tx.all(Firewall),
        lambda firewall: wire.shape(call.view, firewall),
        equal={"name": lambda firewall: firewall.name},
    )


def create(call: Call) -> Reply:
    firewall, started = firewalls.create(call.tx, call.body(wire.Create))
    return call.reply_with_actions(started, firewall=wire.shape(call.view, firewall))


def get(call: Call) -> Reply:
    return _shaped(call, call.find(Firewall))


def update(call: Call) -> Reply:
    firewall, body = call.find(Firewall), call.body(Update)
    actions.require_idle(call.tx, firewall)
    return _shaped(call, relabel(call.tx, firewall, body.name, body.labels))


def delete(call: Call) -> Reply:
    firewalls.delete(call.tx, call.find(Firewall))
    return Reply(None, 204)


def set_rules(call: Call) -> Reply:
    return call.reply_with_actions(firewalls.set_rules(call.tx, call.find(Firewall), call.body(wire.SetRules).rules))


def apply(call: Call) -> Reply:
    return call.reply_with_actions(firewalls.apply(call.tx, call.find(Firewall), call.body(wire.Apply).apply_to)[1])


def remove(call: Call) -> Reply:
    return call.reply_with_actions(firewalls.remove(call.tx, call.find(Firewall), call.body(wire.Remove).remove_from))


def _shaped(call: Call, firewall: Firewall) -> Reply:
    return Reply({"firewall": wire.shape(call.view, firewall)})
