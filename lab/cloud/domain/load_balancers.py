from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from lab.cloud import catalogue
from lab.cloud.catalogue import LOAD_BALANCER_TYPES, LOCATIONS, LoadBalancerType, Location
from lab.cloud.domain import actions, networks, primary_ips
from lab.cloud.domain.common import Site, relabel, require, require_unique_name
from lab.cloud.domain.objects import (
    Action,
    BalancerTarget,
    Certificate,
    HealthCheck,
    HealthCheckHttp,
    LoadBalancer,
    Network,
    PrimaryIp,
    Server,
    Service,
    ServiceHttp,
)
from lab.cloud.domain.targets import address_of, own_address, type_of
from lab.cloud.domain.view import View, location_of
from lab.cloud.errors import (
    CloudResourceIpNotAllowed,
    InvalidInput,
    InvalidLoadBalancerType,
    IpNotAssignedToServer,
    LoadBalancerAlreadyAttached,
    LoadBalancerNotAttachedToNetwork,
    LoadBalancerPublicInterfaceDisabled,
    NetworkHasNoVswitchSubnet,
    NotFound,
    PrimaryIpAssigned,
    PrimaryIpDatacenterMismatch,
    PrimaryIpVersionMismatch,
    Protected,
    ResolveCloudPrivateTargetsError,
    ResolveCloudPublicTargetsError,
    ResourceLimitExceeded,
    SourcePortAlreadyUsed,
    TargetAlreadyDefined,
    TargetsWithoutUsePrivateIp,
)
from lab.cloud.store import Transaction
from lab.cloud.wire import load_balancers as wire
from lab.cloud.wire.base import Body, Update

LOAD_BALANCERS = 20


def create(tx: Transaction, site: Site, body: wire.Create) -> tuple[LoadBalancer, Action]:
    type = _type(body.load_balancer_type)
    require_unique_name(tx, LoadBalancer, body.name)
    if len(tx.all(LoadBalancer)) >= LOAD_BALANCERS:
        raise ResourceLimitExceeded("load_balancer_limit")
    given = _given_ips(tx, body.public_net)
    location = _location(body, given)
    network = require(tx, Network, body.network) if body.network is not None else None
    if not body.public_interface and network is None:
        raise LoadBalancerNotAttachedToNetwork
    id = tx.new_id()
    balancer = tx.put(
        LoadBalancer(
            id=id,
            created=tx.now,
            name=body.name,
            labels=body.labels,
            load_balancer_type=type.id,
            location=location.id,
            algorithm=body.algorithm.type,
            mac_address=networks.mac_address("96", id),
            public=body.public_interface,
        )
    )
    ips = given + [
        primary_ips.allocate(tx, site, kind, location)
        for kind in ("ipv4", "ipv6")
        if kind not in {ip.type for ip in given}
    ]
    for ip in ips:
        tx.put(replace(ip, load_balancer=id))
    if network:
        actions.require_idle(tx, network)
        balancer = networks.join(tx, balancer, network, location.network_zone)
    for service in body.services:
        balancer = _with_service(tx, balancer, _new_service(service))
    for target in body.targets:
        balancer = _with_target(tx, site, balancer, target)
    return balancer, _sync(tx, "create_load_balancer", tx.put(balancer), hold=map(primary_ips.address_key, ips))


def update(tx: Transaction, balancer: LoadBalancer, body: Update) -> LoadBalancer:
    balancer = relabel(tx, balancer, body.name, body.labels)
    actions.enqueue(tx, "sync_load_balancer", balancer, share=_networks(tx, balancer))
    return balancer


def delete(tx: Transaction, balancer: LoadBalancer) -> Action:
    actions.require_unlocked(tx, balancer)
    if balancer.protected:
        raise Protected("load balancer deletion is protected")
    ips = _ips(tx, balancer)
    action = _sync(tx, "delete_load_balancer", balancer, hold=map(primary_ips.address_key, ips))
    for ip in ips:
        if ip.auto_delete:
            tx.drop(ip)
        else:
            tx.put(replace(ip, load_balancer=None))
    tx.drop(balancer)
    return action


# Services


def add_service(tx: Transaction, balancer: LoadBalancer, body: wire.AddService) -> Action:
    return _change(tx, "add_service", _with_service(tx, balancer, _new_service(body)))


def update_service(tx: Transaction, balancer: LoadBalancer, body: wire.UpdateService) -> Action:
    old = _service(balancer, body.listen_port)
    check = _health_check(old.health_check, body.health_check)
    protocol = body.protocol or old.protocol
    service = Service(
        protocol=protocol,
        listen_port=old.listen_port,
        destination_port=body.destination_port or old.destination_port,
        proxyprotocol=old.proxyprotocol if body.proxyprotocol is None else body.proxyprotocol,
        health_check=check,
        http=_http(protocol, old.http or ServiceHttp(), body.http),
    )
    return _change(tx, "update_service", _with_service(tx, balancer, service, old))


def delete_service(tx: Transaction, balancer: LoadBalancer, listen_port: int) -> Action:
    removed = _service(balancer, listen_port)
    left = tuple(service for service in balancer.services if service is not removed)
    return _change(tx, "delete_service", replace(balancer, services=left))


def _service(balancer: LoadBalancer, listen_port: int) -> Service:
    found = next((service for service in balancer.services if service.listen_port == listen_port), None)
    if found is None:
        raise NotFound(f"service with listen_port '{listen_port}' not found")
    return found


def _new_service(body: wire.AddService) -> Service:
    listen_port = body.listen_port or {"http": 80, "https": 443}.get(body.protocol)
    destination_port = body.destination_port or (None if body.protocol == "tcp" else 80)
    if listen_port is None or destination_port is None:
        missing = {"listen_port": listen_port, "destination_port": destination_port}
        raise InvalidInput.fields(
            (name, "Missing data for required field.") for name, port in missing.items() if port is None
        )
    protocol = (body.health_check and body.health_check.protocol) or ("tcp" if body.protocol == "tcp" else "http")
    default = HealthCheck(protocol, destination_port)
    return Service(
        protocol=body.protocol,
        listen_port=listen_port,
        destination_port=destination_port,
        proxyprotocol=body.proxyprotocol,
        health_check=_health_check(default, body.health_check),
        http=_http(body.protocol, ServiceHttp(), body.http),
    )


def _health_check(old: HealthCheck, body: wire.HealthCheck | None) -> HealthCheck:
    check = replace(old, **_given(body, without="http"))
    if check.protocol == "tcp":
        return replace(check, http=None)
    return replace(check, http=replace(old.http or HealthCheckHttp(), **_given(body.http if body else None)))


def _http(protocol: str, old: ServiceHttp, body: wire.ServiceHttp | None) -> ServiceHttp | None:
    given = _given(body)
    if protocol != "https":
        _forbid(given, ("certificates", "redirect_http"), f"is only allowed with protocol https, not with {protocol}")
        old = replace(old, certificates=(), redirect_http=False)
    if protocol == "tcp":
        _forbid(given, ("sticky_sessions",), "is only allowed with protocol http or https")
        return None
    http = replace(old, **given)
    if protocol == "https" and http.sticky_sessions and not http.certificates:
        raise InvalidInput.field("http.sticky_sessions", "requires certificates: without them TLS ends in the target")
    return http


def _forbid(given: Mapping[str, Any], names: Iterable[str], message: str) -> None:
    if wrong := [name for name in names if given.get(name)]:
        raise InvalidInput.fields((f"http.{name}", message) for name in wrong)


def _given(body: Body | None, without: str = "") -> dict[str, Any]:
    """The fields of the body that were sent."""
    if body is None:
        return {}
    return {name: getattr(body, name) for name in sorted(body.model_fields_set) if name != without}


def _with_service(
    tx: Transaction, balancer: LoadBalancer, service: Service, old: Service | None = None
) -> LoadBalancer:
    """Add the service, or replace `old` by it."""
    used = {port for other in balancer.services if other is not old for port in other.ports}
    for port in service.ports:
        if port in used:
            raise SourcePortAlreadyUsed(f"port {port} is already used by a service of this load balancer")
    for id in service.http.certificates if service.http else ():
        require(tx, Certificate, id)
    if old:
        services = tuple(service if other is old else other for other in balancer.services)
    else:
        services = (*balancer.services, service)
    return _within_limits(replace(balancer, services=services))


# Targets


def add_target(tx: Transaction, site: Site, balancer: LoadBalancer, body: wire.AddTarget) -> Action:
    return _change(tx, "add_target", _with_target(tx, site, balancer, body))


def remove_target(tx: Transaction, balancer: LoadBalancer, body: wire.RemoveTarget) -> Action:
    wanted = _identity(_target(body))
    left = tuple(target for target in balancer.targets if _identity(target) != wanted)
    if len(left) == len(balancer.targets):
        raise NotFound("the target is not defined on this load balancer")
    return _change(tx, "remove_target", replace(balancer, targets=left))


def _target(body: wire.RemoveTarget, use_private_ip: bool = False) -> BalancerTarget:
    if body.type == "server" and body.server:
        return BalancerTarget("server", server=body.server.id, ip=body.server.ip, use_private_ip=use_private_ip)
    if body.type == "label_selector" and body.label_selector:
        return BalancerTarget("label_selector", selector=body.label_selector.selector, use_private_ip=use_private_ip)
    return BalancerTarget("ip", ip=body.ip.ip if body.ip else None)


def _identity(target: BalancerTarget) -> object:
    return target.server or target.selector or target.ip


def _with_target(tx: Transaction, site: Site, balancer: LoadBalancer, body: wire.AddTarget) -> LoadBalancer:
    target = _target(body, body.use_private_ip)
    if any(_identity(other) == _identity(target) for other in balancer.targets):
        raise TargetAlreadyDefined("target is already defined")
    if target.use_private_ip and not balancer.attachments:
        raise LoadBalancerNotAttachedToNetwork
    if target.type != "ip" and not (target.use_private_ip or balancer.public):
        raise LoadBalancerPublicInterfaceDisabled
    if target.type == "server":
        _require_address(tx, balancer, target)
    if target.type == "ip":
        target = replace(target, ip=_outside_address(site, balancer, body.use_private_ip, target.ip or ""))
    return _within_limits(replace(balancer, targets=(*balancer.targets, target)))


def _require_address(tx: Transaction, balancer: LoadBalancer, target: BalancerTarget) -> None:
    view, server = View(tx), require(tx, Server, target.server or 0)
    if target.use_private_ip:
        if target.ip is not None:
            raise InvalidInput.field("server.ip", "is only allowed without use_private_ip")
        if not address_of(view, balancer, target, server):
            raise ResolveCloudPrivateTargetsError("server is not attached to the network of the load balancer")
    elif target.ip is not None:
        if not any(primary_ips.owns(ip, target.ip) for ip in view.ips(server)):
            raise IpNotAssignedToServer(f"ip {target.ip} does not belong to server {server.name}")
    elif not address_of(view, balancer, target, server):
        raise ResolveCloudPublicTargetsError("server does not have a public IPv4 address")


def _outside_address(site: Site, balancer: LoadBalancer, use_private_ip: bool, text: str) -> str:
    """An address outside of the lab: at Hetzner that of a dedicated server."""
    if use_private_ip:
        raise InvalidInput.field("use_private_ip", "is only allowed with type server or label_selector")
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidInput.field("ip.ip", f"{text!r} is not an IP address") from None
    if address in site.public_range or address in site.public_range_v6:
        raise CloudResourceIpNotAllowed("the IP belongs to a cloud resource; add the server as the target")
    if any(address in block for block in networks.PRIVATE):
        raise (NetworkHasNoVswitchSubnet("the network has no vswitch subnet") if balancer.attachments else
               LoadBalancerNotAttachedToNetwork())  # fmt: skip
    if not balancer.public:
        raise LoadBalancerPublicInterfaceDisabled
    return str(address)


# Networks, names, size


def attach_to_network(tx: Transaction, balancer: LoadBalancer, body: wire.AttachToNetwork) -> Action:
    actions.require_unlocked(tx, balancer)
    network = require(tx, Network, body.network)
    actions.require_idle(tx, network)
    if balancer.attachments:
        raise LoadBalancerAlreadyAttached("load balancer is already attached to a network")
    zone = location_of(balancer).network_zone
    balancer = networks.join(tx, balancer, network, zone, body.ip, body.ip_range)
    return _sync(tx, "attach_to_network", balancer, network)


def detach_from_network(tx: Transaction, balancer: LoadBalancer, network_id: int) -> Action:
    actions.require_unlocked(tx, balancer)
    network = require(tx, Network, network_id)
    actions.require_idle(tx, network)
    if balancer.attachment(network.id) is None:
        raise InvalidInput.field("network", "load balancer is not attached to network")
    if not balancer.public:
        raise InvalidInput.field("network", "a load balancer without public interface needs its network")
    return _sync(tx, "detach_from_network", tx.put(replace(balancer, attachments=())), network)


def set_public_interface(tx: Transaction, balancer: LoadBalancer, enabled: bool) -> Action:
    if not enabled:
        if not balancer.attachments:
            raise LoadBalancerNotAttachedToNetwork
        if any(not target.use_private_ip for target in balancer.targets):
            raise TargetsWithoutUsePrivateIp("load balancer has targets that use the public IP")
    command = "enable_public_interface" if enabled else "disable_public_interface"
    return _change(tx, command, replace(balancer, public=enabled))


def change_algorithm(tx: Transaction, balancer: LoadBalancer, type: str) -> Action:
    return _change(tx, "change_algorithm", replace(balancer, algorithm=type))


def change_type(tx: Transaction, balancer: LoadBalancer, body: wire.ChangeType) -> Action:
    type = _type(body.load_balancer_type)
    if exceeded := _exceeded(balancer, type):
        raise InvalidLoadBalancerType(f"load balancer has more {exceeded} than a {type.name} allows")
    return _change(tx, "change_load_balancer_type", replace(balancer, load_balancer_type=type.id))


def change_protection(tx: Transaction, balancer: LoadBalancer, delete: bool | None) -> Action:
    actions.require_unlocked(tx, balancer)
    tx.put(replace(balancer, protected=balancer.protected if delete is None else delete))
    return actions.done(tx, "change_protection", balancer)


def change_dns_ptr(tx: Transaction, balancer: LoadBalancer, address: str, name: str | None) -> Action:
    actions.require_unlocked(tx, balancer)
    for ip in _ips(tx, balancer):
        if own_address(ip) == address:
            tx.put(primary_ips.with_ptr(ip, address, name))
            return actions.done(tx, "change_dns_ptr", balancer)
    raise InvalidInput.field("ip", f"{address!r} does not belong to the load balancer")


# Consequences of other changes


def follow(tx: Transaction) -> None:
    """Synchronize the load balancers that depend on what this transaction changed: servers, addresses, certificates."""
    changed = {kind for kind, _, _ in tx.changes()}
    if not changed.intersection((Server, PrimaryIp, Certificate)):
        return
    synchronized = {job.args.get("load_balancer") for job in tx.jobs}
    for balancer in tx.all(LoadBalancer):
        kept = tuple(target for target in balancer.targets if target.type != "server" or tx.get(Server, target.server))
        if len(kept) < len(balancer.targets):
            balancer = tx.put(replace(balancer, targets=kept))
        if balancer.id not in synchronized:
            actions.enqueue(tx, "sync_load_balancer", balancer, share=_networks(tx, balancer))


def _change(tx: Transaction, command: str, changed: LoadBalancer) -> Action:
    actions.require_unlocked(tx, changed)
    return _sync(tx, command, tx.put(changed))


def _sync(
    tx: Transaction, command: str, balancer: LoadBalancer, network: Network | None = None, hold: Iterable[str] = ()
) -> Action:
    """`network`: the one that the action attaches to or detaches from."""
    # Other members of the network may change at the same time, so its key is shared.
    shared = [network] if network else _networks(tx, balancer)
    named = [network] if network else []
    return actions.start(tx, command, balancer, *named, work="sync_load_balancer", share=shared, hold=hold)


def _ips(tx: Transaction, balancer: LoadBalancer) -> list[PrimaryIp]:
    return [ip for ip in tx.all(PrimaryIp) if ip.load_balancer == balancer.id]


def _networks(tx: Transaction, balancer: LoadBalancer) -> list[Network]:
    return [network for entry in balancer.attachments if (network := tx.get(Network, entry.network))]


def _within_limits(balancer: LoadBalancer) -> LoadBalancer:
    if exceeded := _exceeded(balancer, type_of(balancer)):
        raise ResourceLimitExceeded(exceeded, f"a {type_of(balancer).name} allows no more {exceeded}")
    return balancer


def _exceeded(balancer: LoadBalancer, type: LoadBalancerType) -> str | None:
    """The kind of which the load balancer has more than its type allows."""
    certificates = {id for service in balancer.services if service.http for id in service.http.certificates}
    counts = {
        "services": (len(balancer.services), type.max_services),
        "targets": (len(balancer.targets), type.max_targets),
        "certificates": (len(certificates), type.max_assigned_certificates),
    }
    return next((noun for noun, (count, limit) in counts.items() if count > limit), None)


def _type(ref: int | str) -> LoadBalancerType:
    type = catalogue.find(LOAD_BALANCER_TYPES, ref)
    if type is None:
        raise NotFound.of("load_balancer_type", ref)
    return type


def _given_ips(tx: Transaction, public: wire.PublicNet) -> list[PrimaryIp]:
    ips = []
    for kind, id in (("ipv4", public.ipv4), ("ipv6", public.ipv6)):
        if id is None:
            continue
        ip = require(tx, PrimaryIp, id)
        actions.require_unlocked(tx, ip)
        if ip.type != kind:
            raise PrimaryIpVersionMismatch(f"Primary IP {ip.name} is not an {kind} address")
        if ip.server is not None or ip.load_balancer is not None:
            raise PrimaryIpAssigned(f"Primary IP {ip.name} is already assigned")
        ips.append(ip)
    return ips


def _location(body: wire.Create, given: list[PrimaryIp]) -> Location:
    if (body.location is None) == (body.network_zone is None):
        raise InvalidInput.fields([(name, "set a location or a network_zone") for name in ("location", "network_zone")])
    if body.location is not None:
        location = catalogue.find(LOCATIONS, body.location)
        if location is None:
            raise NotFound.of("location", body.location)
    else:
        choices = [entry for entry in LOCATIONS if entry.network_zone == body.network_zone]
        if not choices:
            raise InvalidInput.field("network_zone", f"{body.network_zone!r} is not a network zone")
        bound = {ip.location for ip in given}
        location = next((entry for entry in choices if entry.id in bound), choices[0])
    if any(ip.location != location.id for ip in given):
        raise PrimaryIpDatacenterMismatch("primary IP and load balancer are in different locations")
    return location
