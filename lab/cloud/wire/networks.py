from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from lab.cloud.domain import targets
from lab.cloud.domain.objects import Network
from lab.cloud.domain.view import View
from lab.cloud.wire.base import Body, LabelMap, Name
from lab.cloud.wire.base import Update as BaseUpdate


class AddSubnet(Body):
    type: Literal["cloud", "server", "vswitch"]
    network_zone: str
    ip_range: str | None = None
    vswitch_id: int | None = None


class Route(Body):
    destination: str
    gateway: str


class Create(Body):
    name: Name
    ip_range: str
    labels: LabelMap = Field(default_factory=dict)
    subnets: tuple[AddSubnet, ...] = ()
    routes: tuple[Route, ...] = ()
    expose_routes_to_vswitch: bool = False


class Update(BaseUpdate):
    expose_routes_to_vswitch: bool | None = None


class IpRange(Body):
    ip_range: str


def shape(view: View, network: Network) -> dict[str, Any]:
    return {
        "id": network.id,
        "name": network.name,
        "ip_range": network.ip_range,
        "subnets": [
            {
                "type": subnet.type,
                "ip_range": subnet.ip_range,
                "network_zone": subnet.network_zone,
                "gateway": network.gateway,
                "vswitch_id": None,
            }
            for subnet in network.subnets
        ],
        "routes": [{"destination": route.destination, "gateway": route.gateway} for route in network.routes],
        "servers": view.attached(network),
        "load_balancers": targets.attached(view, network),
        "protection": {"delete": network.protected},
        "labels": network.labels,
        "created": network.created,
        "expose_routes_to_vswitch": network.expose_routes_to_vswitch,
    }


MEMBER_STATUSES = frozenset({"ok", "attaching", "detaching", "updating", "error"})


@dataclass(frozen=True, slots=True)
class Member:
    """Clients pass these keys to a constructor, which rejects any other key."""

    id: int
    type: str
    ip: str
    alias_ips: tuple[str, ...]
    subnet: str | None
    status: str
