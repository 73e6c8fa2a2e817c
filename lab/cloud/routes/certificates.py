from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import certificates
from lab.cloud.domain.common import relabel
from lab.cloud.domain.objects import Certificate
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire import certificates as wire
from lab.cloud.wire.base import Update

TYPES = frozenset({"uploaded", "managed"})


def routes() -> list[Route]:
    return [
        route("/certificates", list_all),
        route("/certificates", create, "POST"),
        route("/certificates/{id}", get),
        route("/certificates/{id}", update, "PUT"),
        route("/certificates/{id}", delete, "DELETE"),
        route("/certificates/{id}/actions/retry", retry, "POST"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "certificates",
        call.tx.all(Certificate),
        lambda certificate: wire.shape(call.view, certificate),
        equal={"name": lambda certificate: certificate.name},
        one_of={"type": (lambda certificate: certificate.type, TYPES)},
    )


def create(call: Call) -> Reply:
    certificate, action = certificates.create(call.tx, call.body(wire.Create))
    shown = {"certificate": wire.shape(call.view, certificate), "action": action and action_wire.shape(action)}
    return Reply(shown, 201)


def get(call: Call) -> Reply:
    return _shaped(call, call.find(Certificate))


def update(call: Call) -> Reply:
    body = call.body(Update)
    return _shaped(call, relabel(call.tx, call.find(Certificate), body.name, body.labels))


def delete(call: Call) -> Reply:
    certificates.delete(call.tx, call.find(Certificate))
    return Reply(None, 204)


def retry(call: Call) -> Reply:
    return call.reply_with_action(certificates.retry(call.tx, call.find(Certificate)))


def _shaped(call: Call, certificate: Certificate) -> Reply:
    return Reply({"certificate": wire.shape(call.view, certificate)})
