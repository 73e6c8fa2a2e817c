"""Read-only resources: locations, server types, images, prices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.routing import Route

from lab.cloud.catalogue import (
    IMAGES,
    LOCATIONS,
    SERVER_TYPES,
    Image,
    Location,
    ServerType,
    pricing_shape,
    server_type_shape,
)
from lab.cloud.errors import DeprecatedEndpoint, NotFound
from lab.cloud.web import Call, Reply, route

TRUE = frozenset({"true", "1", "yes"})


def routes() -> list[Route]:
    return [
        route("/locations", locations),
        route("/locations/{id}", location),
        route("/server_types", server_types),
        route("/server_types/{id}", server_type),
        route("/images", images),
        route("/images/{id}", image),
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
    return call.listing(
        "server_types",
        SERVER_TYPES,
        lambda type: _type_shape(call, type),
        sort=("id", "name"),
        equal={"name": lambda type: type.name},
        labels_of=None,
    )


def server_type(call: Call) -> Reply:
    return Reply({"server_type": _type_shape(call, _one(call, "server_type", SERVER_TYPES))})


def images(call: Call) -> Reply:
    rows: list[Image] = list(IMAGES)
    if call.query.get("include_deprecated", "").lower() not in TRUE:
        rows = [image for image in rows if image.deprecated is None]
    if call.query.get("bound_to"):
        rows = []
    return call.listing(
        "images",
        rows,
        lambda image: image.shape(),
        equal={"name": lambda image: image.name},
        one_of={
            "type": (lambda image: image.type, frozenset({"system", "app", "snapshot", "backup"})),
            "status": (lambda image: "available", frozenset({"available", "creating", "unavailable"})),
            "architecture": (lambda image: image.architecture, frozenset({"x86", "arm"})),
        },
        labels_of=lambda image: {},
    )


def image(call: Call) -> Reply:
    return Reply({"image": _one(call, "image", IMAGES).shape()})


def pricing(call: Call) -> Reply:
    return Reply({"pricing": pricing_shape()})


def datacenters(call: Call) -> Reply:
    raise DeprecatedEndpoint("https://docs.hetzner.cloud/changelog#2025-12-16-phasing-out-datacenters")


def _type_shape(call: Call, type: ServerType) -> dict[str, Any]:
    return server_type_shape(type, call.cloud.faults.announced(type.name, type.sold))


def _one[Entry: (Location, ServerType, Image)](call: Call, noun: str, entries: Iterable[Entry]) -> Entry:
    ref = call.request.path_params["id"]
    for entry in entries:
        if str(entry.id) == ref:
            return entry
    raise NotFound.of(noun, ref)
