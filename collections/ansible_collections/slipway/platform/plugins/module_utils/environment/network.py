"""Network plan: nesting of ranges, host addresses, pod and service ranges, administrators' ranges, API endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from urllib.parse import urlsplit

from .model import Environment, Fault, show

PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
HETZNER_GATEWAY = IPv4Address("172.31.1.1")
SMALLEST_NETWORK = 24
SMALLEST_SUBNET = 30
WIDEST_ADMIN_PREFIX = {4: 8, 6: 16}
"""Ranges wider than this are taken for a mistake."""


def faults(environment: Environment) -> Iterator[Fault]:
    network = range_of(environment.text("platform_network_cidr"))
    subnet = range_of(environment.text("platform_subnet_cidr"))
    if network is not None:
        yield from network_range(environment, network)
        if subnet is not None:
            yield from subnet_range(environment, network, subnet)
            if not subnet.subnet_of(network):
                subnet = None  # addresses are not checked against a wrong subnet
    yield from addresses(environment, network, subnet)
    yield from cluster_ranges(environment, network)
    yield from admin_ranges(environment)
    yield from endpoint(environment)


def range_of(text: str) -> IPv4Network | None:
    """A range; None for a text that is none, which `specs` reports."""
    try:
        return IPv4Network(text)
    except ValueError:
        return None


def network_range(environment: Environment, network: IPv4Network) -> Iterator[Fault]:
    name = "platform_network_cidr"
    if not any(network.subnet_of(private) for private in PRIVATE):
        yield environment.fault(
            name,
            f"{name}: {network} is not private",
            "Choose a range within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16.",
        )
    if network.prefixlen > SMALLEST_NETWORK:
        yield environment.fault(
            name, f"{name}: {network} is too small", f"Hetzner's networks are /{SMALLEST_NETWORK} or wider."
        )


def subnet_range(environment: Environment, network: IPv4Network, subnet: IPv4Network) -> Iterator[Fault]:
    name = "platform_subnet_cidr"
    if not subnet.subnet_of(network):
        yield environment.fault(
            name,
            f"{name}: {subnet} lies outside of platform_network_cidr {network}",
            "Choose a part of that network.",
        )
    if subnet.prefixlen > SMALLEST_SUBNET:
        yield environment.fault(
            name, f"{name}: {subnet} is too small", f"Hetzner's subnets are /{SMALLEST_SUBNET} or wider."
        )


def addresses(environment: Environment, network: IPv4Network | None, subnet: IPv4Network | None) -> Iterator[Fault]:
    hosts_by_address: dict[IPv4Address, str] = {}
    for host in environment.hosts:
        setting = host.settings.get("provision_private_ip")
        if setting is None:
            yield Fault(
                host.origin, f"host {host.name}: has no provision_private_ip", "Give it a free address of the subnet."
            )
            continue
        if setting.error:
            continue
        try:
            address = IPv4Address(str(setting.value))
        except ValueError:
            continue
        if address in hosts_by_address:
            yield Fault(
                setting.origin,
                f"provision_private_ip of {host.name}: {address} is that of {hosts_by_address[address]} too",
                "Choose a free one.",
            )
        hosts_by_address.setdefault(address, host.name)
        if (reserved_for := reserved(address, network, subnet)) is not None:
            problem, remedy = reserved_for
            yield Fault(setting.origin, f"provision_private_ip of {host.name}: {address} {problem}", remedy)


def reserved(address: IPv4Address, network: IPv4Network | None, subnet: IPv4Network | None) -> tuple[str, str] | None:
    """Why a machine cannot have an address, and the remedy; None if it can."""
    another = "Choose another one of the subnet."
    if network is not None and address == network[1]:
        return "is the gateway of the network", another
    if address == HETZNER_GATEWAY:
        return "is reserved by Hetzner", another
    if subnet is None:
        return None
    if address not in subnet:
        return f"lies outside of platform_subnet_cidr {subnet}", "Choose one inside."
    if address == subnet.network_address:
        return "is the network address of the subnet", "Choose a later one."
    if address == subnet.broadcast_address:
        return "is the broadcast address of the subnet", "Choose an earlier one."
    return None


def cluster_ranges(environment: Environment, network: IPv4Network | None) -> Iterator[Fault]:
    """Pod and service ranges must not overlap the private network or each other, and contain the cluster's DNS."""
    ranges: dict[str, IPv4Network] = {} if network is None else {"platform_network_cidr": network}
    for name in ("rke2_cluster_cidr", "rke2_service_cidr"):
        found = range_of(str(environment.value(name)))
        if found is None:
            continue
        for other, taken in ranges.items():
            if found.overlaps(taken):
                # The defaults do not overlap, so the value that the inventory sets is the one to change.
                culprit = name if name in environment.settings else other
                yield environment.fault(
                    culprit, f"{name}: {found} overlaps {other} {taken}", "Choose ranges that do not overlap."
                )
        ranges[name] = found
    services = ranges.get("rke2_service_cidr")
    name = "rke2_cluster_dns"
    try:
        dns = IPv4Address(str(environment.value(name)))
    except ValueError:
        return
    if services is not None and dns not in services:
        yield environment.fault(
            name,
            f"{name}: {dns} lies outside of rke2_service_cidr {services}",
            f"Choose an address inside, such as {services[10] if services.num_addresses > 10 else services[1]}.",
        )


def admin_ranges(environment: Environment) -> Iterator[Fault]:
    name = "platform_admin_cidrs"
    for value in environment.texts(name):
        try:
            found = ip_network(value)
        except ValueError:
            continue
        if found.prefixlen < WIDEST_ADMIN_PREFIX[found.version] and not environment.value("check_world_admins_allowed"):
            yield environment.fault(
                name,
                f"{name}: {found} opens SSH and the Kubernetes API to the world",
                "Name the administrators' ranges, or set check_world_admins_allowed to true if that is intended.",
            )


def endpoint(environment: Environment) -> Iterator[Fault]:
    name = "platform_hcloud_endpoint"
    value = environment.text(name)
    if value.startswith("http://") and not is_local(urlsplit(value).hostname or ""):
        yield environment.fault(
            name, f"{name}: {show(value)} sends the token unencrypted through the internet", "Write https://."
        )


def is_local(host: str) -> bool:
    """Whether an address is private or loopback; a name counts as public, except localhost."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost"
