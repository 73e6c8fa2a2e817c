from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import primary_ips
from lab.cloud.domain.common import require
from lab.cloud.domain.objects import PrimaryIp, Server
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire import primary_ips as wire
from lab.cloud.wire.base import DnsPtr, Protection


def routes() -> list[Route]:
    return [
        route("/primary_ips", list_all),
        route("/primary_ips", create, "POST"),
        route("/primary_ips/{id}", get),
        route("/primary_ips/{id}", update, "PUT"),
        route("/primary_ips/{id}", delete, "DELETE"),
        route("/primary_ips/{id}/actions/assign", assign, "POST"),
        route("/primary_ips/{id}/actions/unassign", unassign, "POST"),
        route("/primary_ips/{id}/actions/change_dns_ptr", change_dns_ptr, "POST"),
        route("/primary_ips/{id}/actions/change_protection", change_protection, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "primary_ips",
        [ip for ip in call.tx.all(PrimaryIp) if primary_ips.is_named(ip, call.query.get("ip") or ip.ip)],
        lambda ip: wire.shape(call.view, ip),
        sort=("id", "created"),
        equal={"name": lambda ip: ip.name},
    )


def create(call: Call) -> Reply:
    ip, action = primary_ips.create(call.tx, call.cloud.site, call.body(wire.Create))
    current = call.tx.get(PrimaryIp, ip.id) or ip
    payload = {"primary_ip": wire.shape(call.view, current), "action": action and action_wire.shape(action)}
    return Reply(payload, 201)


def get(call: Call) -> Reply:
    return _shaped(call, call.find(PrimaryIp))


def update(call: Call) -> Reply:
    return _shaped(call, primary_ips.update(call.tx, call.find(PrimaryIp), call.body(wire.Update)))


def delete(call: Call) -> Reply:
    primary_ips.delete(call.tx, call.find(PrimaryIp))
    return Reply(None, 204)


def assign(call: Call) -> Reply:
    ip, body = call.find(PrimaryIp), call.body(wire.Assign)
    return call.reply_with_action(primary_ips.assign(call.tx, ip, require(call.tx, Server, body.assignee_id)))


def unassign(call: Call) -> Reply:
    return call.reply_with_action(primary_ips.unassign(call.tx, call.find(PrimaryIp)))


def change_dns_ptr(call: Call) -> Reply:
    ip, body = call.find(PrimaryIp), call.body(DnsPtr)
    return call.reply_with_action(primary_ips.change_dns_ptr(call.tx, ip, body.ip, body.dns_ptr))


def change_protection(call: Call) -> Reply:
    return call.reply_with_action(
        primary_ips.change_protection(call.tx, call.find(PrimaryIp), call.body(Protection).delete)
    )


def _shaped(call: Call, ip: PrimaryIp) -> Reply:
    return Reply({"primary_ip": wire.shape(call.view, ip)})
