from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.cloud.domain.objects import FloatingIp
from lab.cloud.domain.view import location_of
from lab.cloud.wire.base import Body, LabelMap, Name, Ref
from lab.cloud.wire.base import Update as BaseUpdate
from lab.cloud.wire.primary_ips import ptrs


class Create(Body):
    type: Literal["ipv4", "ipv6"]
    name: Name | None = None
    description: str | None = None
    labels: LabelMap = Field(default_factory=dict)
    home_location: Ref | None = None
    server: int | None = None


class Update(BaseUpdate):
    description: str | None = None


class Assign(Body):
    server: int


def shape(ip: FloatingIp) -> dict[str, Any]:
    return {
        "id": ip.id,
        "name": ip.name,
        "description": ip.description,
        "labels": ip.labels,
        "created": ip.created,
        "blocked": False,
        "home_location": location_of(ip).shape(),
        "ip": ip.ip,
        "type": ip.type,
        "server": ip.server,
        "dns_ptr": ptrs(ip),
        "protection": {"delete": ip.protected},
    }
