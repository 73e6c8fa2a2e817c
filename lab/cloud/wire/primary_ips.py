from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from lab.cloud.domain.objects import FloatingIp, PrimaryIp
from lab.cloud.domain.view import View, location_of
from lab.cloud.wire.base import NO_DATACENTER, Body, LabelMap, Name, Ref
from lab.cloud.wire.base import Update as BaseUpdate


class Create(Body):
    name: Name
    type: Literal["ipv4", "ipv6"]
    labels: LabelMap = Field(default_factory=dict)
    location: Ref | None = None
    assignee_type: Literal["server", "unassigned"] | None = None
    assignee_id: int | None = None
    auto_delete: bool = False

    UNSUPPORTED: ClassVar[Mapping[str, str]] = NO_DATACENTER


class Update(BaseUpdate):
    auto_delete: bool | None = None


class Assign(Body):
    assignee_id: int
    assignee_type: Literal["server"] = "server"


def ptrs(ip: PrimaryIp | FloatingIp) -> list[dict[str, str]]:
    return [{"ip": address, "dns_ptr": name} for address, name in ip.dns_ptr.items()]


def shape(view: View, ip: PrimaryIp) -> dict[str, Any]:
    return {
        "id": ip.id,
        "name": ip.name,
        "labels": ip.labels,
        "created": ip.created,
        "blocked": False,
        "location": location_of(ip).shape(),
        "ip": ip.ip,
        "dns_ptr": ptrs(ip),
        "protection": {"delete": ip.protected},
        "type": ip.type,
        "auto_delete": ip.auto_delete,
        "assignee_type": "load_balancer" if ip.load_balancer else "server" if ip.server else "unassigned",
        "assignee_id": ip.load_balancer or ip.server,
    }
