from __future__ import annotations

from dataclasses import asdict

from starlette.routing import Route

from lab.cloud.domain import networks
from lab.cloud.domain.objects import LoadBalancer, Network, Server
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import networks as wire
from lab.cloud.wire.base import Protection


def routes() -> list[Route]:
    return [
        route("/networks", list_all),
        route("/networks", create, "POST"),
        route("/networks/{id}", get),
        route("/networks/{id}", update, "PUT"),
        route("/networks/{id}", delete, "DELETE"),
        route("/networks/{id}/members", members),
        route("/networks/{id}/actions/add_subnet", add_subnet, "POST"),
        route("/networks/{id}/actions/delete_subnet", delete_subnet, "POST"),
        route("/networks/{id}/actions/add_route", add_route, "POST"),
        route("/networks/{id}/actions/delete_route", delete_route, "POST"),
        route("/networks/{id}/actions/change_ip_range", change_ip_range, "POST"),
        route("/networks/{id}/actions/change_protection", change_protection, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "networks",
        call.tx.all(Network),
        lambda network: wire.shape(call.view, network),
        equal={"name": lambda network: network.name},
    )


def create(call: Call) -> Reply:
    return _shaped(call, networks.create(call.tx, call.body(wire.Create)), 201)


def get(call: Call) -> Reply:
    return _shaped(call, call.find(Network))


def update(call: Call) -> Reply:
    return _shaped(call, networks.update(call.tx, call.find(Network), call.body(wire.Update)))


def delete(call: Call) -> Reply:
    networks.delete(call.tx, call.find(Network))
    return Reply(None, 204)


def members(call: Call) -> Reply:
    network = call.find(Network)
    return call.listing(
        "members",
        [
            wire.Member(
                id=server.id,
                type="server",
                ip=attachment.ip,
                alias_ips=attachment.alias_ips,
                subnet=networks.subnet_of(network, attachment.ip),
                status=call.view.attachment_status(server, network),
            )
            for server in call.tx.all(Server)
            if (attachment := server.attachment(network.id))
        ]
        + [
            wire.Member(
                id=balancer.id,
                type="load_balancer",
                ip=attachment.ip,
                alias_ips=(),
                subnet=networks.subnet_of(network, attachment.ip),
                status="ok",
            )
            for balancer in call.tx.all(LoadBalancer)
            if (attachment := balancer.attachment(network.id))
        ],
        asdict,
        sort=("id",),
        equal={"subnet": lambda member: member.subnet},
        one_of={
            "type": (lambda member: member.type, frozenset({"server", "load_balancer"})),
            "status": (lambda member: member.status, wire.MEMBER_STATUSES),
        },
        labels_of=None,
    )


def add_subnet(call: Call) -> Reply:
    return call.reply_with_action(networks.add_subnet(call.tx, call.find(Network), call.body(wire.AddSubnet)))


def delete_subnet(call: Call) -> Reply:
    return call.reply_with_action(networks.delete_subnet(call.tx, call.find(Network), call.body(wire.IpRange).ip_range))


def add_route(call: Call) -> Reply:
    return call.reply_with_action(networks.add_route(call.tx, call.find(Network), call.body(wire.Route)))


def delete_route(call: Call) -> Reply:
    return call.reply_with_action(networks.delete_route(call.tx, call.find(Network), call.body(wire.Route)))


def change_ip_range(call: Call) -> Reply:
    return call.reply_with_action(
        networks.change_ip_range(call.tx, call.find(Network), call.body(wire.IpRange).ip_range)
    )


def change_protection(call: Call) -> Reply:
    return call.reply_with_action(networks.change_protection(call.tx, call.find(Network), call.body(Protection).delete))


def _shaped(call: Call, network: Network, status: int = 200) -> Reply:
    return Reply({"network": wire.shape(call.view, network)}, status)
