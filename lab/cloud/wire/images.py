from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.cloud.catalogue import Image
from lab.cloud.domain.objects import Server, Snapshot
from lab.cloud.domain.view import View, image_of
from lab.cloud.wire.base import Body, LabelMap


class Create(Body):
    type: Literal["snapshot", "backup"] = "snapshot"
    description: str | None = None
    labels: LabelMap = Field(default_factory=dict)


class Update(Body):
    type: Literal["snapshot"] | None = None
    description: str | None = None
    labels: LabelMap | None = None


def shape(image: Image | Snapshot) -> dict[str, Any]:
    if isinstance(image, Image):
        return image.shape()
    return image_of(image).shape() | {
        "id": image.id,
        "type": image.type,
        "status": status(image),
        "name": None,
        "description": image.description,
        "image_size": image.size_gb,
        "disk_size": image.disk_size,
        "created": image.created,
        "created_from": {"id": image.created_from, "name": image.created_from_name},
        "bound_to": image.bound_to,
        "rapid_deploy": False,
        "protection": {"delete": image.protected},
        "deprecated": None,
        "deprecation": None,
        "labels": image.labels,
    }


def status(image: Image | Snapshot) -> str:
    return "creating" if isinstance(image, Snapshot) and image.size_gb is None else "available"


def of_server(view: View, server: Server) -> dict[str, Any] | None:
    """None when the snapshot has been deleted."""
    if server.snapshot is None:
        return shape(image_of(server))
    snapshot = view.tx.get(Snapshot, server.snapshot)
    return shape(snapshot) if snapshot else None
