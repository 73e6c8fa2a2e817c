"""The resources of Hetzner's API that the lab does not implement: an error with one sentence."""

from __future__ import annotations

from starlette.routing import Route

from lab.cloud.errors import EndpointNotSupported
from lab.cloud.web import Call, Handler, Reply, route

RESOURCES = {
    "floating_ips": "floating IPs",
    "isos": "ISOs",
    "zones": "DNS zones",
}


def routes() -> list[Route]:
    table = []
    for name, noun in RESOURCES.items():
        for path in (f"/{name}", f"/{name}/{{rest:path}}"):
            table += [route(path, _unsupported(noun), method) for method in ("GET", "POST", "PUT", "DELETE")]
    table += [route("/images/{id}", _unsupported("custom images"), method) for method in ("PUT", "DELETE")]
    table += [route("/images/{id}/actions/change_protection", _unsupported("custom images"), "POST")]
    return table


def _unsupported(noun: str) -> Handler:
    def handle(call: Call) -> Reply:
        raise EndpointNotSupported(
            f"{noun} are not part of the lab's cloud; lab/cloud/README.md lists the implemented endpoints"
        )

    return handle
