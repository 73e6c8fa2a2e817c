from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from lab.cloud.catalogue import TERABYTE, server_type_shape
from lab.cloud.domain import targets
from lab.cloud.domain.objects import PlacementGroup, PrimaryIp, Server
from lab.cloud.domain.view import View, location_of, type_of
from lab.cloud.wire import images, placement_groups
from lab.cloud.wire.base import NO_DATACENTER, Body, HostName, LabelMap, Ref
from lab.cloud.wire.primary_ips import ptrs


def _user_data(text: str) -> str:
    if len(text.encode()) > 32 * 1024:
        raise ValueError("is too long: 32 KiB at most")
    return text


UserData = Annotated[str, AfterValidator(_user_data)]


class PublicNet(Body):
    enable_ipv4: bool = True
    enable_ipv6: bool = True
    ipv4: int | None = None
    ipv6: int | None = None


class FirewallRef(Body):
    firewall: int


class Create(Body):
    name: HostName
    server_type: Ref
    image: Ref
    location: Ref | None = None
    start_after_create: bool = True
    placement_group: int | None = None
    ssh_keys: tuple[Ref, ...] = ()
    volumes: tuple[int, ...] = ()
    networks: tuple[int, ...] = ()
    firewalls: tuple[FirewallRef, ...] = ()
    user_data: UserData = ""
    labels: LabelMap = Field(default_factory=dict)
    automount: bool = False
    public_net: PublicNet = PublicNet()

    UNSUPPORTED: ClassVar[Mapping[str, str]] = NO_DATACENTER


class Update(Body):
    name: HostName | None = None
    labels: LabelMap | None = None


class Rebuild(Body):
    image: Ref
    user_data: UserData | None = None


class ChangeType(Body):
    server_type: Ref
    upgrade_disk: bool


class EnableRescue(Body):
    type: Literal["linux64"] = "linux64"
    ssh_keys: tuple[int, ...] = ()


class AttachToNetwork(Body):
    network: int
    ip: str | None = None
    ip_range: str | None = None
    alias_ips: tuple[str, ...] = ()


class DetachFromNetwork(Body):
    network: int


class ChangeAliasIps(Body):
    network: int
    alias_ips: list[str]


class AddToPlacementGroup(Body):
    placement_group: int


class Protection(Body):
    delete: bool | None = None
    rebuild: bool | None = None


def shape(view: View, server: Server) -> dict[str, Any]:
    group = view.tx.get(PlacementGroup, server.placement_group)
    status = view.firewall_status(server)
    return {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "created": server.created,
        "public_net": {
            "ipv4": _ipv4(view.ip(server, "ipv4")),
            "ipv6": _ipv6(view.ip(server, "ipv6")),
            "floating_ips": [ip.id for ip in view.floating_ips(server)],
            "firewalls": [{"id": firewall, "status": status} for firewall in view.firewalls(server)],
        },
        "private_net": [
            {
                "network": attachment.network,
                "ip": attachment.ip,
                "alias_ips": attachment.alias_ips,
                "mac_address": attachment.mac_address,
            }
            for attachment in server.attachments
        ],
        "server_type": server_type_shape(type_of(server)),
        "location": location_of(server).shape(),
        "image": images.of_server(view, server),
        "iso": None,
        "rescue_enabled": view.rescue(server) is not None,
        "locked": server.key in view.locked,
        "backup_window": server.backup_window,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": 20 * TERABYTE,
        "protection": {"delete": server.protected, "rebuild": server.protected},
        "labels": server.labels,
        "volumes": view.volumes(server),
        "load_balancers": targets.balancers_of(view, server),
        "primary_disk_size": server.primary_disk_size,
        "placement_group": placement_groups.shape(view, group) if group else None,
    }


def _ipv4(ip: PrimaryIp | None) -> dict[str, Any] | None:
    return {"id": ip.id, "ip": ip.ip, "blocked": False, "dns_ptr": ip.dns_ptr[ip.ip]} if ip else None


def _ipv6(ip: PrimaryIp | None) -> dict[str, Any] | None:
    return {"id": ip.id, "ip": ip.ip, "blocked": False, "dns_ptr": ptrs(ip)} if ip else None
