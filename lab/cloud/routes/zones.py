from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.routing import Route

from lab.cloud import labels
from lab.cloud.domain import zones
from lab.cloud.domain.objects import Action, RRSet, Zone
from lab.cloud.store import Transaction
from lab.cloud.web import Call, Handler, Reply, route
from lab.cloud.wire import zones as wire
from lab.cloud.wire.base import Body, Protection

RRSETS_PER_PAGE = 100
RRSET = "/zones/{id}/rrsets/{name}/{type}"


def routes() -> list[Route]:
    return [
        route("/zones", list_all),
        route("/zones", create, "POST"),
        route("/zones/{id}", get),
        route("/zones/{id}", update, "PUT"),
        route("/zones/{id}", delete, "DELETE"),
        route("/zones/{id}/zonefile", export),
        *(route(f"/zones/{{id}}/actions/{name}", handle, "POST") for name, handle in ACTIONS.items()),
        route("/zones/{id}/rrsets", list_rrsets),
        route("/zones/{id}/rrsets", create_rrset, "POST"),
        route(RRSET, get_rrset),
        route(RRSET, update_rrset, "PUT"),
        route(RRSET, delete_rrset, "DELETE"),
        route(f"{RRSET}/actions/add_records", add_records, "POST"),
        *(route(f"{RRSET}/actions/{name}", handle, "POST") for name, handle in RRSET_ACTIONS.items()),
    ]


def list_all(call: Call) -> Reply:
    return call.listing(
        "zones",
        call.tx.all(Zone),
        lambda zone: _shape(call, zone),
        equal={"name": lambda zone: zone.name},
        one_of={"mode": (lambda zone: zone.mode, frozenset({"primary", "secondary"}))},
    )


def create(call: Call) -> Reply:
    zone, action = zones.create(call.tx, call.body(wire.Create))
    return call.reply_with_action(action, zone=_shape(call, zone))


def get(call: Call) -> Reply:
    return Reply({"zone": _shape(call, call.find(Zone))})


def update(call: Call) -> Reply:
    zone = zones.update(call.tx, call.find(Zone), call.body(wire.Update).labels)
    return Reply({"zone": _shape(call, zone)})


def delete(call: Call) -> Reply:
    return call.reply_with_action(zones.delete(call.tx, call.find(Zone)))


def export(call: Call) -> Reply:
    return Reply({"zonefile": zones.export(call.tx, call.find(Zone))})


def list_rrsets(call: Call) -> Reply:
    zone = call.find(Zone)
    zones.require_primary(zone)
    rows = zones.rrsets(call.tx, zone)
    for key in labels.unequal_keys(call.query.get("label_selector", "")):
        # Only in this list of Hetzner's, `key!=value` does not match what has no such key.
        rows = [rrset for rrset in rows if key in rrset.labels]
    return call.listing(
        "rrsets",
        rows,
        wire.rrset_shape,
        equal={"name": lambda rrset: rrset.name},
        one_of={"type": (lambda rrset: rrset.type, wire.TYPES)},
        max_per_page=RRSETS_PER_PAGE,
    )


def create_rrset(call: Call) -> Reply:
    rrset, action = zones.create_rrset(call.tx, call.find(Zone), call.body(wire.CreateRRSet))
    return call.reply_with_action(action, rrset=wire.rrset_shape(rrset))


def get_rrset(call: Call) -> Reply:
    return Reply({"rrset": wire.rrset_shape(_found(call)[1])})


def update_rrset(call: Call) -> Reply:
    rrset = zones.update_rrset(call.tx, _found(call)[1], call.body(wire.Update).labels)
    return Reply({"rrset": wire.rrset_shape(rrset)})


def delete_rrset(call: Call) -> Reply:
    return call.reply_with_action(zones.delete_rrset(call.tx, *_found(call)))


def add_records(call: Call) -> Reply:
    parameters = call.request.path_params
    zone, body = call.find(Zone), call.body(wire.AddRecords)
    return call.reply_with_action(zones.add_records(call.tx, zone, parameters["name"], parameters["type"], body))


def _change[B: Body](model: type[B], change: Callable[[Transaction, Zone, B], Action]) -> Handler:
    """Handler of an action of a zone."""
    return lambda call: call.reply_with_action(change(call.tx, call.find(Zone), call.body(model)))


def _rrset_change[B: Body](
    model: type[B], change: Callable[[Transaction, Zone, RRSet, B], Action], status: int = 201
) -> Handler:
    """Handler of an action of a record set."""

    def handle(call: Call) -> Reply:
        reply = call.reply_with_action(change(call.tx, *_found(call), call.body(model)))
        reply.status = status
        return reply

    return handle


ACTIONS: dict[str, Handler] = {
    "change_ttl": _change(wire.ChangeTtl, lambda tx, zone, body: zones.change_ttl(tx, zone, body.ttl)),
    "change_protection": _change(Protection, lambda tx, zone, body: zones.change_protection(tx, zone, body.delete)),
    "change_primary_nameservers": _change(
        wire.ChangeNameservers,
        lambda tx, zone, body: zones.change_primary_nameservers(tx, zone, body.primary_nameservers),
    ),
    "import_zonefile": _change(wire.Import, lambda tx, zone, body: zones.import_zonefile(tx, zone, body.zonefile)),
}
RRSET_ACTIONS: dict[str, Handler] = {
    "change_ttl": _rrset_change(
        wire.ChangeRRSetTtl, lambda tx, zone, rrset, body: zones.change_rrset_ttl(tx, zone, rrset, body.ttl)
    ),
    "change_protection": _rrset_change(
        wire.RRSetProtection, lambda tx, zone, rrset, body: zones.change_rrset_protection(tx, zone, rrset, body.change)
    ),
    "set_records": _rrset_change(
        wire.SetRecords, lambda tx, zone, rrset, body: zones.set_records(tx, zone, rrset, body.records)
    ),
    "remove_records": _rrset_change(
        wire.SetRecords, lambda tx, zone, rrset, body: zones.remove_records(tx, zone, rrset, body.records)
    ),
    "update_records": _rrset_change(
        wire.UpdateRecords, lambda tx, zone, rrset, body: zones.update_records(tx, zone, rrset, body.records), 200
    ),
}


def _found(call: Call) -> tuple[Zone, RRSet]:
    zone, parameters = call.find(Zone), call.request.path_params
    return zone, zones.find_rrset(call.tx, zone, parameters["name"], parameters["type"])


def _shape(call: Call, zone: Zone) -> dict[str, Any]:
    return wire.shape(zone, zones.record_count(call.tx, zone))
