from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from lab.cloud.catalogue import load_balancer_type_shape
from lab.cloud.domain import targets
from lab.cloud.domain.objects import BalancerTarget, LoadBalancer, PrimaryIp, Server, Service
from lab.cloud.domain.view import View, location_of
from lab.cloud.wire.base import Body, LabelMap, Name, Ref
from lab.cloud.wire.firewalls import SelectorRef
from lab.machines.base import TargetHealth

Health = Mapping[tuple[int, str], TargetHealth]
"""(listen port, address of the target) → health."""

Port = Annotated[int, Field(ge=1, le=65535)]
Protocol = Literal["tcp", "http", "https"]


class HealthCheckHttp(Body):
    domain: Annotated[str, StringConstraints(max_length=128, pattern=r"^[!-~]*$")] | None = None
    path: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[!-~]+$")] | None = None
    response: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    status_codes: (
        Annotated[
            tuple[Annotated[str, StringConstraints(pattern=r"^(?:[0-9?]{3}|[0-9?]{0,2}\*)$")], ...],
            Field(min_length=1, max_length=20),
        ]
        | None
    ) = None
    tls: bool | None = None

    @model_validator(mode="after")
    def _require_host(self) -> HealthCheckHttp:
        if self.domain and any(sign in self.domain for sign in "%\\"):
            raise ValueError("domain may not contain spaces, percent or backslash symbols")
        return self


class HealthCheck(Body):
    protocol: Literal["tcp", "http"] | None = None
    port: Port | None = None
    interval: Annotated[int, Field(ge=3, le=60)] | None = None
    timeout: Annotated[int, Field(ge=1, le=60)] | None = None
    retries: Annotated[int, Field(ge=1, le=5)] | None = None
    http: HealthCheckHttp | None = None


class ServiceHttp(Body):
    cookie_name: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_.~+-]+$")] | None = None
    cookie_lifetime: Annotated[int, Field(ge=30, le=86400)] | None = None
    timeout_idle: Annotated[int, Field(ge=30, le=300)] | None = None
    certificates: tuple[int, ...] | None = None
    redirect_http: bool | None = None
    sticky_sessions: bool | None = None


class UpdateService(Body):
    listen_port: Port
    protocol: Protocol | None = None
    destination_port: Port | None = None
    proxyprotocol: bool | None = None
    health_check: HealthCheck | None = None
    http: ServiceHttp | None = None


class AddService(Body):
    protocol: Protocol
    listen_port: Port | None = None
    destination_port: Port | None = None
    proxyprotocol: bool = False
    health_check: HealthCheck | None = None
    http: ServiceHttp | None = None


class DeleteService(Body):
    listen_port: Port


class ServerRef(Body):
    id: int
    ip: str | None = None


class IpRef(Body):
    ip: str


class RemoveTarget(Body):
    type: Literal["server", "label_selector", "ip"]
    server: ServerRef | None = None
    label_selector: SelectorRef | None = None
    ip: IpRef | None = None

    @model_validator(mode="after")
    def _require_fields(self) -> RemoveTarget:
        if getattr(self, self.type) is None:
            raise ValueError(f"{self.type} is required with type {self.type}")
        return self


class AddTarget(RemoveTarget):
    use_private_ip: bool = False


class Algorithm(Body):
    type: Literal["round_robin", "least_connections"]


class PublicNet(Body):
    ipv4: int | None = None
    ipv6: int | None = None


class Create(Body):
    name: Name
    load_balancer_type: Ref
    algorithm: Algorithm = Algorithm(type="round_robin")
    services: tuple[AddService, ...] = ()
    targets: tuple[AddTarget, ...] = ()
    labels: LabelMap = Field(default_factory=dict)
    public_interface: bool = True
    public_net: PublicNet = PublicNet()
    network: int | None = None
    network_zone: str | None = None
    location: Ref | None = None


class ChangeType(Body):
    load_balancer_type: Ref


class AttachToNetwork(Body):
    network: int
    ip: str | None = None
    ip_range: str | None = None


class DetachFromNetwork(Body):
    network: int


def shape(view: View, balancer: LoadBalancer, health: Health) -> dict[str, Any]:
    return {
        "id": balancer.id,
        "name": balancer.name,
        "public_net": {
            "enabled": balancer.public,
            **{type: _public(targets.ip_of(view, balancer, type)) for type in ("ipv4", "ipv6")},
        },
        "private_net": [{"network": entry.network, "ip": entry.ip} for entry in balancer.attachments],
        "location": location_of(balancer).shape(),
        "load_balancer_type": load_balancer_type_shape(targets.type_of(balancer)),
        "protection": {"delete": balancer.protected},
        "labels": balancer.labels,
        "created": balancer.created,
        "services": [_service(service) for service in balancer.services],
        "targets": [_target(view, balancer, target, health) for target in balancer.targets],
        "algorithm": {"type": balancer.algorithm},
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": targets.type_of(balancer).included_traffic,
    }


def _public(ip: PrimaryIp | None) -> dict[str, Any]:
    if ip is None:
        return {"ip": None, "dns_ptr": None}
    address = targets.own_address(ip)
    return {"id": ip.id, "ip": address, "blocked": False, "dns_ptr": ip.dns_ptr.get(address)}


def _service(service: Service) -> dict[str, Any]:
    check, http = service.health_check, service.http
    shown: dict[str, Any] = {
        "protocol": service.protocol,
        "listen_port": service.listen_port,
        "destination_port": service.destination_port,
        "proxyprotocol": service.proxyprotocol,
        "health_check": {
            "protocol": check.protocol,
            "port": check.port,
            "interval": check.interval,
            "timeout": check.timeout,
            "retries": check.retries,
        },
    }
    if check.http:
        shown["health_check"]["http"] = {
            "domain": check.http.domain,
            "path": check.http.path,
            "response": check.http.response,
            "status_codes": check.http.status_codes,
            "tls": check.http.tls,
        }
    if http:
        shown["http"] = {
            "cookie_name": http.cookie_name,
            "cookie_lifetime": http.cookie_lifetime,
            "timeout_idle": http.timeout_idle,
            "certificates": http.certificates,
            "redirect_http": http.redirect_http,
            "sticky_sessions": http.sticky_sessions,
        }
    return shown


def _target(view: View, balancer: LoadBalancer, target: BalancerTarget, health: Health) -> dict[str, Any]:
    if target.type == "ip":
        checked = {"health_status": _health(balancer, target.ip, health)}
        return {"type": "ip", "ip": {"ip": target.ip}, **checked}
    servers = targets.servers_of(view, target)
    resolved = [_server(view, balancer, target, server, health) for server in servers]
    if target.type == "label_selector":
        return {
            "type": "label_selector",
            "label_selector": {"selector": target.selector},
            "targets": resolved,
            "use_private_ip": target.use_private_ip,
        }
    return resolved[0]


def _server(
    view: View, balancer: LoadBalancer, target: BalancerTarget, server: Server, health: Health
) -> dict[str, Any]:
    address = targets.address_of(view, balancer, target, server)
    public = view.ip(server, "ipv4")
    return {
        "type": "server",
        "server": {"id": server.id, "ip": target.ip or (public.ip if public else address or "")},
        "health_status": _health(balancer, address, health),
        "use_private_ip": target.use_private_ip,
    }


def _health(balancer: LoadBalancer, address: str | None, health: Health) -> list[dict[str, Any]]:
    rows = []
    for service in balancer.services:
        found = health.get((service.listen_port, address or "")) or TargetHealth("unknown")
        row: dict[str, Any] = {"listen_port": service.listen_port, "status": found.status}
        if found.detail:
            row["detail"] = found.detail
        if found.http_status_code:
            row["http_status_code"] = found.http_status_code
        rows.append(row)
    return rows
