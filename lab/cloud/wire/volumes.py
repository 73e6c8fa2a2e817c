from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lab.cloud.domain.objects import Volume
from lab.cloud.domain.view import View, location_of
from lab.cloud.wire.base import Body, LabelMap, Ref

VolumeName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
Size = Annotated[int, Field(ge=10, le=10240)]


class Create(Body):
    name: VolumeName
    size: Size
    labels: LabelMap = Field(default_factory=dict)
    automount: bool | None = None
    format: Literal["ext4", "xfs"] | None = None
    location: Ref | None = None
    server: int | None = None


class Update(Body):
    name: VolumeName | None = None
    labels: LabelMap | None = None


class Attach(Body):
    server: int
    automount: bool = False


class Resize(Body):
    size: Size


def shape(view: View, volume: Volume) -> dict[str, Any]:
    return {
        "id": volume.id,
        "created": volume.created,
        "name": volume.name,
        "server": volume.server,
        "location": location_of(volume).shape(),
        "size": volume.size,
        "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{volume.id}",
        "protection": {"delete": volume.protected},
        "labels": volume.labels,
        "status": volume.status,
        "format": volume.format,
    }
