"""Read-only resources: locations, server types, ISOs, prices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.routing import Route

from lab.cloud.catalogue import (
    ISOS,
    LOCATIONS,
    SERVER_TYPES,
    Iso,
    Location,
    ServerType,
    pricing_shape,
    server_type_shape,
)
from lab.cloud.errors import DeprecatedEndpoint, InvalidInput, NotFound
from lab.cloud.web import TRUE, Call, Reply, route

ARCHITECTURES = frozenset({"x86", "arm"})


def routes() -> list[Route]:
    return [
        route("/locations", locations),
        route("/locations/{id}", location),
        route("/server_types", server_types),
        route("/server_types/{id}", server_type),
        route("/isos", isos),
        route("/isos/{id}", iso),
        route("/pricing", pricing),
        route("/datacenters", datacenters),
        route("/datacenters/{id}", datacenters),
    ]


def locations(call: Call) -> Reply:
    return call.listing(
        "locations",
        LOCATIONS,
        lambda location: location.shape(),
        sort=("id", "name"),
        equal={"name": lambda location: location.name},
        labels_of=None,
    )


def location(call: Call) -> Reply:
    return Reply({"location": _one(call, "location", LOCATIONS).shape()})


def server_types(call: Call) -> Reply:
    """Without those that cannot be ordered any more, which are only found by id."""
    return call.listing(
        "server_types",
        [type for type in SERVER_TYPES if not type.withdrawn],
        lambda type: _type_shape(call, type),
        sort=("id", "name"),
        equal={"name": lambda type: type.name},
        labels_of=None,
    )


def server_type(call: Call) -> Reply:
    return Reply({"server_type": _type_shape(call, _one(call, "server_type", SERVER_TYPES))})


def isos(call: Call) -> Reply:
    rows = list(ISOS)
    if wanted := call.query.get("architecture"):
        if wanted not in ARCHITECTURES:
            raise InvalidInput.field("architecture", f"{wanted!r} is not among {sorted(ARCHITECTURES)}")
        has_wildcard = call.query.get("include_architecture_wildcard", "").lower() in TRUE
        rows = [iso for iso in rows if iso.architecture == wanted or (has_wildcard and iso.architecture is None)]
    return call.listing("isos", rows, Iso.shape, equal={"name": lambda iso: iso.name}, labels_of=None)


def iso(call: Call) -> Reply:
    return Reply({"iso": _one(call, "iso", ISOS).shape()})


def pricing(call: Call) -> Reply:
    return Reply({"pricing": pricing_shape()})


def datacenters(call: Call) -> Reply:
    raise DeprecatedEndpoint("https://docs.hetzner.cloud/changelog#2025-12-16-phasing-out-datacenters")


def _type_shape(call: Call, type: ServerType) -> dict[str, Any]:
    return server_type_shape(type, call.cloud.faults.announced(type.name, type.sold))


def _one[Entry: (Location, ServerType, Iso)](call: Call, noun: str, entries: Iterable[Entry]) -> Entry:
    ref = call.request.path_params["id"]
    for entry in entries:
        if str(entry.id) == ref:
            return entry
    raise NotFound.of(noun, ref)
