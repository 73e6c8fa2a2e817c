from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from lab.cloud.domain import servers
from lab.cloud.domain.objects import Action, Server
from lab.cloud.errors import EndpointNotSupported
from lab.cloud.store import Transaction
from lab.cloud.web import Call, Handler, Reply, route
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire import servers as wire
from lab.cloud.wire.base import DnsPtr

STATUSES = frozenset(
    {"running", "initializing", "starting", "stopping", "off", "deleting", "migrating", "rebuilding", "unknown"}
)
UNSUPPORTED = {
    "attach_iso": "hosts of the lab's cloud cannot boot from ISOs; create servers from an image and user data",
    "request_console": "VNC consoles are not part of the lab's cloud; print the host's console with `lab console NAME`",
}


def routes() -> list[Route]:
    return [
        route("/servers", list_all),
        route("/servers", create, "POST"),
        route("/servers/{id}", get),
        route("/servers/{id}", update, "PUT"),
        route("/servers/{id}", delete, "DELETE"),
        route("/servers/{id}/metrics", unsupported("metrics are not part of the lab's cloud; read them on the host")),
        *(route(f"/servers/{{id}}/actions/{name}", handle, "POST") for name, handle in ACTIONS.items()),
        *(
            route(f"/servers/{{id}}/actions/{name}", unsupported(message), "POST")
            for name, message in UNSUPPORTED.items()
        ),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "servers",
        call.tx.all(Server),
        lambda server: wire.shape(call.view, server),
        equal={"name": lambda server: server.name},
        one_of={"status": (lambda server: server.status, STATUSES)},
    )


def create(call: Call) -> Reply:
    server, action, following = servers.create(call.tx, call.cloud.site, call.body(wire.Create))
    return call.reply_with_action(
        action,
        server=wire.shape(call.view, server),
        next_actions=[action_wire.shape(action) for action in following],
        root_password=server.root_password,
    )


def get(call: Call) -> Reply:
    return _shaped(call, call.find(Server))


def update(call: Call) -> Reply:
    return _shaped(call, servers.update(call.tx, call.find(Server), call.body(wire.Update)))


def delete(call: Call) -> Reply:
    reply = call.reply_with_action(servers.delete(call.tx, call.find(Server)))
    reply.status = 200
    return reply


def without_body(change: Callable[[Transaction, Server], Action]) -> Handler:
    """Handler of an action without a request body."""
    return lambda call: call.reply_with_action(change(call.tx, call.find(Server)))


def reset_password(call: Call) -> Reply:
    action, password = servers.reset_password(call.tx, call.find(Server))
    return call.reply_with_action(action, root_password=password)


def rebuild(call: Call) -> Reply:
    action, password = servers.rebuild(call.tx, call.cloud.site, call.find(Server), call.body(wire.Rebuild))
    return call.reply_with_action(action, root_password=password)


def change_type(call: Call) -> Reply:
    return call.reply_with_action(
        servers.change_type(call.tx, call.cloud.site, call.find(Server), call.body(wire.ChangeType))
    )


def enable_rescue(call: Call) -> Reply:
    action, password = servers.enable_rescue(call.tx, call.find(Server), call.body(wire.EnableRescue))
    return call.reply_with_action(action, root_password=password)


def attach_to_network(call: Call) -> Reply:
    return call.reply_with_action(
        servers.attach_to_network(call.tx, call.find(Server), call.body(wire.AttachToNetwork))
    )


def detach_from_network(call: Call) -> Reply:
    server, body = call.find(Server), call.body(wire.DetachFromNetwork)
    return call.reply_with_action(servers.detach_from_network(call.tx, server, body.network))


def change_alias_ips(call: Call) -> Reply:
    server, body = call.find(Server), call.body(wire.ChangeAliasIps)
    return call.reply_with_action(servers.change_alias_ips(call.tx, server, body.network, body.alias_ips))


def add_to_placement_group(call: Call) -> Reply:
    server, body = call.find(Server), call.body(wire.AddToPlacementGroup)
    return call.reply_with_action(servers.add_to_placement_group(call.tx, server, body.placement_group))


def change_protection(call: Call) -> Reply:
    server, body = call.find(Server), call.body(wire.Protection)
    return call.reply_with_action(servers.change_protection(call.tx, server, body.delete, body.rebuild))


def change_dns_ptr(call: Call) -> Reply:
    server, body = call.find(Server), call.body(DnsPtr)
    return call.reply_with_action(servers.change_dns_ptr(call.tx, server, body.ip, body.dns_ptr))


ACTIONS: dict[str, Handler] = {
    "poweron": without_body(servers.power_on),
    "poweroff": without_body(servers.power_off),
    "shutdown": without_body(servers.shutdown),
    "reboot": without_body(servers.reboot),
    "reset": without_body(servers.reset),
    "reset_password": reset_password,
    "rebuild": rebuild,
    "change_type": change_type,
    "enable_rescue": enable_rescue,
    "detach_iso": without_body(servers.detach_iso),
    "disable_rescue": without_body(servers.disable_rescue),
    "enable_backup": without_body(lambda tx, server: servers.set_backup(tx, server, True)),
    "disable_backup": without_body(lambda tx, server: servers.set_backup(tx, server, False)),
    "attach_to_network": attach_to_network,
    "detach_from_network": detach_from_network,
    "change_alias_ips": change_alias_ips,
    "add_to_placement_group": add_to_placement_group,
    "remove_from_placement_group": without_body(servers.remove_from_placement_group),
    "change_protection": change_protection,
    "change_dns_ptr": change_dns_ptr,
}


def unsupported(message: str) -> Handler:
    def handle(call: Call) -> Reply:
        call.find(Server)
        raise EndpointNotSupported(message)

    return handle


def _shaped(call: Call, server: Server) -> Reply:
    return Reply({"server": wire.shape(call.view, server)})
