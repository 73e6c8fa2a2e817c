"""Relations of the load balancers: their addresses, and the servers behind them."""

from __future__ import annotations

from ipaddress import IPv6Network

from lab.cloud import labels
from lab.cloud.catalogue import LOAD_BALANCER_TYPES, LoadBalancerType
from lab.cloud.domain.objects import BalancerTarget, Certificate, LoadBalancer, Network, PrimaryIp, Server
from lab.cloud.domain.view import View

_TYPES = {entry.id: entry for entry in LOAD_BALANCER_TYPES}


def type_of(balancer: LoadBalancer) -> LoadBalancerType:
    return _TYPES[balancer.load_balancer_type]


def ip_of(view: View, balancer: LoadBalancer, type: str) -> PrimaryIp | None:
    ips = view.tx.all(PrimaryIp)
    return next((ip for ip in ips if ip.load_balancer == balancer.id and ip.type == type), None)


def own_address(ip: PrimaryIp) -> str:
    """The address of a load balancer; of an IPv6 network it is the first one."""
    return ip.ip if ip.type == "ipv4" else str(IPv6Network(ip.ip)[1])


def servers_of(view: View, target: BalancerTarget) -> list[Server]:
    """The servers of a target; none for an IP."""
    if target.type == "server":
        server = view.tx.get(Server, target.server)
        return [server] if server else []
    if target.selector is None:
        return []
    matches = labels.parse(target.selector)
    return [server for server in view.tx.all(Server) if matches(server.labels)]


def address_of(view: View, balancer: LoadBalancer, target: BalancerTarget, server: Server) -> str | None:
    """Where the traffic for a server goes; None without such an address."""
    if target.use_private_ip:
        attached = next((server.attachment(entry.network) for entry in balancer.attachments), None)
        return attached.ip if attached else None
    public = view.ip(server, "ipv4")
    return target.ip or (public.ip if public else None)


def addresses(view: View, balancer: LoadBalancer) -> list[str]:
    """The addresses that serve, each once."""
    found: dict[str, None] = {}
    for target in balancer.targets:
        if target.type == "ip" and target.ip:
            found[target.ip] = None
        for server in servers_of(view, target):
            if address := address_of(view, balancer, target, server):
                found[address] = None
    return list(found)


def balancers_of(view: View, server: Server) -> list[int]:
    """Ids of the load balancers with this server as a target."""
    return [
        balancer.id
        for balancer in view.tx.all(LoadBalancer)
        if any(server in servers_of(view, target) for target in balancer.targets)
    ]


def balancers_with(view: View, certificate: Certificate) -> list[int]:
    """Ids of the load balancers that serve with this certificate."""
    return [
        balancer.id
        for balancer in view.tx.all(LoadBalancer)
        if any(service.http and certificate.id in service.http.certificates for service in balancer.services)
    ]


def attached(view: View, network: Network) -> list[int]:
    """Ids of the load balancers in this network."""
    return [balancer.id for balancer in view.tx.all(LoadBalancer) if balancer.attachment(network.id)]
