from __future__ import annotations

from starlette.routing import Route

from lab.cloud.domain import ssh_keys
from lab.cloud.domain.common import relabel
from lab.cloud.domain.objects import SshKey
from lab.cloud.web import Call, Reply, route
from lab.cloud.wire import ssh_keys as wire
from lab.cloud.wire.base import Update


def routes() -> list[Route]:
    return [
        route("/ssh_keys", list_all),
        route("/ssh_keys", create, "POST"),
        route("/ssh_keys/{id}", get),
        route("/ssh_keys/{id}", update, "PUT"),
        route("/ssh_keys/{id}", delete, "DELETE"),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "ssh_keys",
        call.tx.all(SshKey),
        lambda key: wire.shape(call.view, key),
        sort=("id", "name"),
        equal={"name": lambda key: key.name, "fingerprint": lambda key: key.fingerprint},
    )


def create(call: Call) -> Reply:
    return _shaped(call, ssh_keys.create(call.tx, call.body(wire.Create)), 201)


def get(call: Call) -> Reply:
    return _shaped(call, call.find(SshKey))


def update(call: Call) -> Reply:
    body = call.body(Update)
    return _shaped(call, relabel(call.tx, call.find(SshKey), body.name, body.labels))


def delete(call: Call) -> Reply:
    call.tx.drop(call.find(SshKey))
    return Reply(None, 204)


def _shaped(call: Call, key: SshKey, status: int = 200) -> Reply:
    return Reply({"ssh_key": wire.shape(call.view, key)}, status)
