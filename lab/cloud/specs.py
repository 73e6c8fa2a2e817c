"""Specifications for the machines, derived from the stored objects."""

from __future__ import annotations

from lab.cloud.domain import targets
from lab.cloud.domain.objects import (
    Attachment,
    Certificate,
    Firewall,
    LoadBalancer,
    Network,
    Server,
    Service,
    Snapshot,
    Volume,
)
from lab.cloud.domain.view import View, image_of, type_of
from lab.machines.base import (
    AttachmentSpec,
    Desired,
    FirewallRule,
    FirewallSpec,
    HealthCheckSpec,
    HostSpec,
    LoadBalancerSpec,
    NetworkSpec,
    Route,
    ServiceSpec,
    VolumeSpec,
)

FIRST_PRIVATE_SLOT = 6
"""Private interfaces are enp7s0, enp8s0, enp9s0."""


def host(view: View, server: Server) -> HostSpec:
    type, rescue = type_of(server), view.rescue(server)
    ipv4, ipv6 = view.ip(server, "ipv4"), view.ip(server, "ipv6")
    return HostSpec(
        server_id=server.id,
        name=server.name,
        image=image_of(server).name,
        cores=type.cores,
        memory_gb=type.memory,
        disk_gb=server.primary_disk_size,
        ipv4=ipv4.ip if ipv4 else None,
        ipv6_network=ipv6.ip if ipv6 else None,
        user_data=server.user_data,
        ssh_keys=server.ssh_keys,
        root_password=rescue.password if rescue else server.root_password,
        rescue=rescue is not None,
        rescue_ssh_keys=rescue.ssh_keys if rescue else (),
        public_mac=server.mac_address,
        floating_ips=tuple(ip.ip for ip in view.floating_ips(server)),
        snapshot_id=server.snapshot,
    )


def network(network: Network) -> NetworkSpec:
    return NetworkSpec(
        network_id=network.id,
        name=network.name,
        ip_range=network.ip_range,
        routes=tuple(Route(route.destination, route.gateway) for route in network.routes),
    )


def attachment(server: Server | LoadBalancer, attached: Attachment) -> AttachmentSpec:
    return AttachmentSpec(
        server_id=server.id,
        network_id=attached.network,
        ip=attached.ip,
        mac_address=attached.mac_address,
        interface=f"enp{FIRST_PRIVATE_SLOT + attached.number}s0",
        alias_ips=attached.alias_ips,
    )


def firewall(firewall: Firewall) -> FirewallSpec:
    return FirewallSpec(
        firewall_id=firewall.id,
        rules=tuple(
            FirewallRule(
                direction=rule.direction,
                protocol=rule.protocol,
                port=rule.port,
                cidrs=rule.source_ips if rule.direction == "in" else rule.destination_ips,
            )
            for rule in firewall.rules
        ),
    )


def volume(volume: Volume) -> VolumeSpec:
    return VolumeSpec(volume_id=volume.id, size_gb=volume.size, format=volume.format)


def load_balancer(view: View, balancer: LoadBalancer) -> LoadBalancerSpec:
    ipv4, ipv6 = (targets.ip_of(view, balancer, type) if balancer.public else None for type in ("ipv4", "ipv6"))
    services = (_service(view, service) for service in balancer.services)
    return LoadBalancerSpec(
        load_balancer_id=balancer.id,
        name=balancer.name,
        public_mac=balancer.mac_address,
        ipv4=ipv4.ip if ipv4 else None,
        ipv6_network=ipv6.ip if ipv6 else None,
        attachment=next((attachment(balancer, entry) for entry in balancer.attachments), None),
        algorithm=balancer.algorithm,
        max_connections=targets.type_of(balancer).max_connections,
        services=tuple(service for service in services if service),
        targets=tuple(targets.addresses(view, balancer)),
    )


def _service(view: View, service: Service) -> ServiceSpec | None:
    """None while its managed certificates are not issued: without a certificate the service would pass TLS through."""
    check, http = service.health_check, service.http
    certificates = [view.tx.get(Certificate, id) for id in http.certificates] if http else []
    issued = [entry for entry in certificates if entry and entry.certificate and entry.private_key]
    if certificates and not issued:
        return None
    check_http = {name: getattr(check.http, name) for name in check.http.__slots__} if check.http else {}
    return ServiceSpec(
        protocol=service.protocol,
        listen_port=service.listen_port,
        destination_port=service.destination_port,
        proxyprotocol=service.proxyprotocol,
        health_check=HealthCheckSpec(
            protocol=check.protocol,
            port=check.port,
            interval=check.interval,
            timeout=check.timeout,
            retries=check.retries,
            **check_http,
        ),
        cookie_name=http.cookie_name if http and http.sticky_sessions else None,
        cookie_lifetime=http.cookie_lifetime if http else 300,
        timeout_idle=http.timeout_idle if http else 50,
        certificates=tuple(f"{entry.certificate}\n{entry.private_key}" for entry in issued),
        redirect_http=http is not None and http.redirect_http,
    )


def desired(view: View) -> Desired:
    """The desired state of everything. Pending jobs run after it is reached."""
    servers, volumes = view.tx.all(Server), view.tx.all(Volume)
    return Desired(
        hosts=tuple(host(view, server) for server in servers),
        running=frozenset(server.id for server in servers if server.status in ("running", "starting")),
        networks=tuple(network(entry) for entry in view.tx.all(Network)),
        attachments=tuple(attachment(server, attached) for server in servers for attached in server.attachments),
        firewalls=tuple(firewall(entry) for entry in view.tx.all(Firewall)),
        firewall_members={server.id: tuple(ids) for server in servers if (ids := view.firewalls(server))},
        volumes=tuple(volume(entry) for entry in volumes),
        volume_attachments={entry.id: entry.server for entry in volumes if entry.server is not None},
        snapshots=frozenset(entry.id for entry in view.tx.all(Snapshot) if entry.size_gb is not None),
        load_balancers=tuple(load_balancer(view, entry) for entry in view.tx.all(LoadBalancer)),
    )
