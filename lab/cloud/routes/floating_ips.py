from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import floating_ips
from lab.cloud.domain.common import require
from lab.cloud.domain.objects import FloatingIp, Server
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire import floating_ips as wire
from lab.cloud.wire.base import DnsPtr, Protection


def routes() -> list[Route]:
    return [
        route("/floating_ips", list_all),
        route("/floating_ips", create, "POST"),
        route("/floating_ips/{id}", get),
        route("/floating_ips/{id}", update, "PUT"),
        route("/floating_ips/{id}", delete, "DELETE"),
        route("/floating_ips/{id}/actions/assign", assign, "POST"),
        route("/floating_ips/{id}/actions/unassign", unassign, "POST"),
        route("/floating_ips/{id}/actions/change_dns_ptr", change_dns_ptr, "POST"),
        route("/floating_ips/{id}/actions/change_protection", change_protection, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "floating_ips",
        call.tx.all(FloatingIp),
        wire.shape,
        sort=("id", "created"),
        equal={"name": lambda ip: ip.name},
    )


def create(call: Call) -> Reply:
    ip, action = floating_ips.create(call.tx, call.cloud.site, call.body(wire.Create))
    current = call.tx.get(FloatingIp, ip.id) or ip
    return Reply({"floating_ip": wire.shape(current), "action": action and action_wire.shape(action)}, 201)


def get(call: Call) -> Reply:
    return _shaped(call.find(FloatingIp))


def update(call: Call) -> Reply:
    return _shaped(floating_ips.update(call.tx, call.find(FloatingIp), call.body(wire.Update)))


def delete(call: Call) -> Reply:
    floating_ips.delete(call.tx, call.find(FloatingIp))
    return Reply(None, 204)


def assign(call: Call) -> Reply:
    ip, body = call.find(FloatingIp), call.body(wire.Assign)
    return call.reply_with_action(floating_ips.assign(call.tx, ip, require(call.tx, Server, body.server)))


def unassign(call: Call) -> Reply:
    return call.reply_with_action(floating_ips.unassign(call.tx, call.find(FloatingIp)))


def change_dns_ptr(call: Call) -> Reply:
    ip, body = call.find(FloatingIp), call.body(DnsPtr)
    return call.reply_with_action(floating_ips.change_dns_ptr(call.tx, ip, body.ip, body.dns_ptr))


def change_protection(call: Call) -> Reply:
    ip, body = call.find(FloatingIp), call.body(Protection)
    return call.reply_with_action(floating_ips.change_protection(call.tx, ip, body.delete))


def _shaped(ip: FloatingIp) -> Reply:
    return Reply({"floating_ip": wire.shape(ip)})
