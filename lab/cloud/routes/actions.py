"""Actions: all of them by id, and those of each resource."""

from __future__ import annotations

from starlette.routing import Route

from lab.cloud import web
from lab.cloud.catalogue import Image
from lab.cloud.domain.objects import (
    Action,
    Certificate,
    Firewall,
    FloatingIp,
    LoadBalancer,
    Network,
    Object,
    PrimaryIp,
    Server,
    Snapshot,
    Volume,
    Zone,
)
from lab.cloud.errors import DeprecatedEndpoint, InvalidInput, NotFound
from lab.cloud.routes import images
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import actions as wire

STATUSES = frozenset({"running", "success", "error"})
SORT = ("id", "command", "status", "started", "finished")
PLURALS: dict[str, type[Object]] = {
    "servers": Server,
    "networks": Network,
    "firewalls": Firewall,
    "volumes": Volume,
    "primary_ips": PrimaryIp,
    "floating_ips": FloatingIp,
    "images": Snapshot,
    "zones": Zone,
    "certificates": Certificate,
    "load_balancers": LoadBalancer,
}


def routes() -> list[Route]:
    table = [route("/actions", list_by_ids), route("/actions/{id}", get)]
    for plural, kind in PLURALS.items():
        noun = plural[:-1]

        def list_all(call: Call, noun: str = noun) -> Reply:
            return _listing(call, [action for action in call.tx.all(Action) if _about(action, noun)])

        table += [route(f"/{plural}/actions", list_all), route(f"/{plural}/actions/{{id}}", get)]

        def list_of_object(call: Call, kind: type[Object] = kind) -> Reply:
            id = _find(call, kind).id
            return _listing(call, [action for action in call.tx.all(Action) if _about(action, kind.TYPE, id)])

        def get_of_object(call: Call, kind: type[Object] = kind) -> Reply:
            id, action = _find(call, kind).id, call.find(Action, "action_id")
            if not _about(action, kind.TYPE, id):
                raise NotFound.of("action", action.id)
            return _single(action)

        table += [route(f"/{plural}/{{id}}/actions", list_of_object)]
        table += [route(f"/{plural}/{{id}}/actions/{{action_id}}", get_of_object)]
    return table


def list_by_ids(call: Call) -> Reply:
    if not call.query.getlist("id"):
        raise DeprecatedEndpoint(
            "https://docs.hetzner.cloud/changelog"
            "#2025-01-30-listing-arbitrary-actions-in-the-actions-list-endpoint-is-removed"
        )
    wanted = sorted(_ids(call))
    reply = _listing(call, [action for id in wanted if (action := call.tx.get(Action, id))])
    reply.wait_seconds = web.POLL_SECONDS
    return reply


def get(call: Call) -> Reply:
    return _single(call.find(Action))


def _find(call: Call, kind: type[Object]) -> Object | Image:
    return images.find(call) if kind is Snapshot else call.find(kind)


def _single(action: Action) -> Reply:
    return Reply({"action": wire.shape(action)}, wait_seconds=web.POLL_SECONDS)


def _ids(call: Call) -> set[int]:
    ids = call.query.getlist("id")
    if not all(id.isdecimal() for id in ids):
        raise InvalidInput.field("id", "is not a number")
    return {int(id) for id in ids}


def _listing(call: Call, rows: list[Action]) -> Reply:
    if wanted := _ids(call):
        rows = [action for action in rows if action.id in wanted]
    return call.listing(
        "actions",
        rows,
        wire.shape,
        sort=SORT,
        one_of={"status": (lambda row: row.status, STATUSES)},
        labels_of=None,
    )


def _about(action: Action, type: str, id: int | None = None) -> bool:
    return any(resource.type == type and id in (None, resource.id) for resource in action.resources)
