"""The parts of Hetzner's API that the lab does not have: known by name, refused with a sentence."""

from __future__ import annotations

from starlette.routing import Route

from lab.cloud.errors import NotBuilt
from lab.cloud.web import Call, Handler, Reply, route

RESOURCES = {
    "certificates": "certificates",
    "floating_ips": "floating IPs",
    "isos": "ISOs",
    "load_balancers": "load balancers",
    "load_balancer_types": "load balancers",
    "zones": "DNS zones",
}


def routes() -> list[Route]:
    found = []
    for name, noun in RESOURCES.items():
        for path in (f"/{name}", f"/{name}/{{rest:path}}"):
            found += [route(path, _refuse(noun), method) for method in ("GET", "POST", "PUT", "DELETE")]
    found += [route("/images/{id}", _refuse("images of one's own"), method) for method in ("PUT", "DELETE")]
    found += [route("/images/{id}/actions/change_protection", _refuse("images of one's own"), "POST")]
    return found


def _refuse(noun: str) -> Handler:
    def handle(call: Call) -> Reply:
        raise NotBuilt(f"{noun} are not part of the lab's cloud yet; lab/cloud/README.md lists what is")

    return handle
