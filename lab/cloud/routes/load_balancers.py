from __future__ import annotations

from starlette.routing import Route

from lab.cloud import metrics
from lab.cloud.catalogue import LOAD_BALANCER_TYPES, load_balancer_type_shape
from lab.cloud.domain import load_balancers
from lab.cloud.domain.objects import LoadBalancer
from lab.cloud.errors import NotFound
from lab.cloud.web import Call, Handler, Reply, route
from lab.cloud.wire import load_balancers as wire
from lab.cloud.wire.base import DnsPtr, Protection, Update


def routes() -> list[Route]:
    return [
        route("/load_balancer_types", types),
        route("/load_balancer_types/{id}", type_),
        route("/load_balancers", list_all),
        route("/load_balancers", create, "POST"),
        route("/load_balancers/{id}", get),
        route("/load_balancers/{id}", update, "PUT"),
        route("/load_balancers/{id}", delete, "DELETE"),
        route("/load_balancers/{id}/metrics", metrics_of),
        *(route(f"/load_balancers/{{id}}/actions/{name}", handle, "POST") for name, handle in ACTIONS.items()),
    ]


def types(call: Call) -> Reply:
    return call.listing(
        "load_balancer_types",
        LOAD_BALANCER_TYPES,
        load_balancer_type_shape,
        sort=("id", "name"),
        equal={"name": lambda type: type.name},
        labels_of=None,
    )


def type_(call: Call) -> Reply:
    ref = call.request.path_params["id"]
    for type in LOAD_BALANCER_TYPES:
        if str(type.id) == ref:
            return Reply({"load_balancer_type": load_balancer_type_shape(type)})
    raise NotFound.of("load_balancer_type", ref)


def list_all(call: Call) -> Reply:
    return call.listing(
        "load_balancers",
        call.tx.all(LoadBalancer),
        lambda balancer: wire.shape(call.view, balancer, _health(call, balancer)),
        equal={"name": lambda balancer: balancer.name},
    )


def create(call: Call) -> Reply:
    balancer, action = load_balancers.create(call.tx, call.cloud.site, call.body(wire.Create))
    return call.reply_with_action(action, load_balancer=wire.shape(call.view, balancer, {}))


def get(call: Call) -> Reply:
    return _shaped(call, call.find(LoadBalancer))


def update(call: Call) -> Reply:
    return _shaped(call, load_balancers.update(call.tx, call.find(LoadBalancer), call.body(Update)))


def delete(call: Call) -> Reply:
    return call.reply_with_action(load_balancers.delete(call.tx, call.find(LoadBalancer)))


def metrics_of(call: Call) -> Reply:
    balancer, period = call.find(LoadBalancer), metrics.Period.of(call.query)
    machines = call.cloud.machines
    return Reply(
        None, after_commit=lambda: {"metrics": metrics.shape(machines.load_balancer_samples(balancer.id), period)}
    )


def add_service(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.AddService)
    return call.reply_with_action(load_balancers.add_service(call.tx, balancer, body))


def update_service(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.UpdateService)
    return call.reply_with_action(load_balancers.update_service(call.tx, balancer, body))


def delete_service(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.DeleteService)
    return call.reply_with_action(load_balancers.delete_service(call.tx, balancer, body.listen_port))


def add_target(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.AddTarget)
    return call.reply_with_action(load_balancers.add_target(call.tx, call.cloud.site, balancer, body))


def remove_target(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.RemoveTarget)
    return call.reply_with_action(load_balancers.remove_target(call.tx, balancer, body))


def attach_to_network(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.AttachToNetwork)
    return call.reply_with_action(load_balancers.attach_to_network(call.tx, balancer, body))


def detach_from_network(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.DetachFromNetwork)
    return call.reply_with_action(load_balancers.detach_from_network(call.tx, balancer, body.network))


def set_public_interface(enabled: bool) -> Handler:
    return lambda call: call.reply_with_action(
        load_balancers.set_public_interface(call.tx, call.find(LoadBalancer), enabled)
    )


def change_algorithm(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.Algorithm)
    return call.reply_with_action(load_balancers.change_algorithm(call.tx, balancer, body.type))


def change_type(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(wire.ChangeType)
    return call.reply_with_action(load_balancers.change_type(call.tx, balancer, body))


def change_protection(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(Protection)
    return call.reply_with_action(load_balancers.change_protection(call.tx, balancer, body.delete))


def change_dns_ptr(call: Call) -> Reply:
    balancer, body = call.find(LoadBalancer), call.body(DnsPtr)
    return call.reply_with_action(load_balancers.change_dns_ptr(call.tx, balancer, body.ip, body.dns_ptr))


ACTIONS: dict[str, Handler] = {
    "add_service": add_service,
    "update_service": update_service,
    "delete_service": delete_service,
    "add_target": add_target,
    "remove_target": remove_target,
    "attach_to_network": attach_to_network,
    "detach_from_network": detach_from_network,
    "enable_public_interface": set_public_interface(True),
    "disable_public_interface": set_public_interface(False),
    "change_algorithm": change_algorithm,
    "change_type": change_type,
    "change_protection": change_protection,
    "change_dns_ptr": change_dns_ptr,
}


def _health(call: Call, balancer: LoadBalancer) -> wire.Health:
    return call.cloud.machines.load_balancer_health(balancer.id)


def _shaped(call: Call, balancer: LoadBalancer) -> Reply:
    return Reply({"load_balancer": wire.shape(call.view, balancer, _health(call, balancer))})
