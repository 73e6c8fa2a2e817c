"""The resources of Hetzner's API that the lab does not implement: their lists are empty, changes are an error."""

from __future__ import annotations

from starlette.routing import Route

from lab.cloud.errors import EndpointNotSupported, NotFound
from lab.cloud.web import Call, Handler, Reply, route

RESOURCES = {
    "certificates": "certificates",
    "load_balancers": "load balancers",
    "load_balancer_types": "load balancers",
}


def routes() -> list[Route]:
    table = []
    for plural, noun in RESOURCES.items():
        paths = (f"/{plural}", f"/{plural}/{{rest:path}}")
        table += [route(f"/{plural}", _empty(plural)), route(f"/{plural}/{{id:path}}", _not_found(plural[:-1]))]
        table += [route(path, _unsupported(noun), method) for path in paths for method in ("POST", "PUT", "DELETE")]
    return table


def _empty(plural: str) -> Handler:
    return lambda call: call.listing(plural, [], dict, labels_of=None)


def _not_found(noun: str) -> Handler:
    def handle(call: Call) -> Reply:
        raise NotFound.of(noun, call.request.path_params["id"])

    return handle


def _unsupported(noun: str) -> Handler:
    def handle(call: Call) -> Reply:
        raise EndpointNotSupported(
            f"{noun} are not part of the lab's cloud; lab/cloud/README.md lists the implemented endpoints"
        )

    return handle
