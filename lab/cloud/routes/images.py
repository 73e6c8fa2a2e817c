"""Images: those of the catalogue, which are read-only, and snapshots and backups of servers."""

from __future__ import annotations

from starlette.routing import Route

from lab.cloud.catalogue import IMAGES, Image
from lab.cloud.domain import snapshots
from lab.cloud.domain.objects import Server, Snapshot
from lab.cloud.domain.view import image_of
from lab.cloud.errors import InvalidInput, NotFound
from lab.cloud.web import TRUE, Call, Reply, route
from lab.cloud.wire import images as wire
from lab.cloud.wire.base import Protection

TYPES = frozenset({"system", "app", "snapshot", "backup"})
STATUSES = frozenset({"available", "creating", "unavailable"})


def routes() -> list[Route]:
    return [
        route("/images", list_all),
        route("/images/{id}", get),
        route("/images/{id}", update, "PUT"),
        route("/images/{id}", delete, "DELETE"),
        route("/images/{id}/actions/change_protection", change_protection, "POST"),
        route("/servers/{id}/actions/create_image", create, "POST"),
    ]


def find(call: Call) -> Image | Snapshot:
    ref = call.request.path_params["id"]
    own = call.tx.get(Snapshot, int(ref)) if ref.isdecimal() else None
    image = own or next((image for image in IMAGES if str(image.id) == ref), None)
    if image is None:
        raise NotFound.of("image", ref)
    return image


def list_all(call: Call) -> Reply:
    rows: list[Image | Snapshot] = [*IMAGES, *call.tx.all(Snapshot)]
    if call.query.get("include_deprecated", "").lower() not in TRUE:
        rows = [image for image in rows if isinstance(image, Snapshot) or image.deprecated is None]
    if bound_to := call.query.getlist("bound_to"):
        rows = [image for image in rows if isinstance(image, Snapshot) and str(image.bound_to) in bound_to]
    return call.listing(
        "images",
        rows,
        wire.shape,
        equal={"name": lambda image: image.name},
        one_of={
            "type": (lambda image: image.type, TYPES),
            "status": (wire.status, STATUSES),
            "architecture": (_architecture, frozenset({"x86", "arm"})),
        },
        labels_of=lambda image: image.labels if isinstance(image, Snapshot) else {},
    )


def get(call: Call) -> Reply:
    return Reply({"image": wire.shape(find(call))})


def create(call: Call) -> Reply:
    snapshot, action = snapshots.create(call.tx, call.find(Server), call.body(wire.Create))
    return call.reply_with_action(action, image=wire.shape(snapshot))


def update(call: Call) -> Reply:
    return Reply({"image": wire.shape(snapshots.update(call.tx, _own(call), call.body(wire.Update)))})


def delete(call: Call) -> Reply:
    snapshots.delete(call.tx, _own(call))
    return Reply(None, 204)


def change_protection(call: Call) -> Reply:
    return call.reply_with_action(snapshots.change_protection(call.tx, _own(call), call.body(Protection).delete))


def _own(call: Call) -> Snapshot:
    image = find(call)
    if isinstance(image, Image):
        raise InvalidInput(f"image {image.name} is a {image.type} image: only snapshots and backups can be changed")
    return image


def _architecture(image: Image | Snapshot) -> str:
    return (image if isinstance(image, Image) else image_of(image)).architecture
