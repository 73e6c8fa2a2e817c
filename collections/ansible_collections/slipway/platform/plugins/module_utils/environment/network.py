"""Network plan: nesting of ranges, host addresses, pod and service ranges, administrators' ranges, API endpoint."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
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
    network = yield from cidr(environment, "platform_network_cidr")
    subnet = yield from cidr(environment, "platform_subnet_cidr")
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


def cidr(environment: Environment, name: str) -> Generator[Fault, None, IPv4Network | None]:
    """Yield the faults of a range; return the range if it is valid."""
    value = environment.text(name)
    if not value:
        return None
    try:
        return IPv4Network(value)
    except ValueError:
        pass
    try:
        problem = f"which has bits beyond its mask; write {IPv4Network(value, strict=False)}"
    except ValueError:
        problem = "which is no IPv4 range; write one, for example 10.40.0.0/16"
    yield environment.fault(name, f"{name} is {show(value)}, {problem}.")
    return None


def network_range(environment: Environment, network: IPv4Network) -> Iterator[Fault]:
    name = "platform_network_cidr"
    if not any(network.subnet_of(private) for private in PRIVATE):
        yield environment.fault(
            name,
            f"{name} is {network}, which is not private; choose a range within 10.0.0.0/8, 172.16.0.0/12 or "
            "192.168.0.0/16.",
        )
    if network.prefixlen > SMALLEST_NETWORK:
        yield environment.fault(name, f"{name} is {network}; Hetzner's networks are /{SMALLEST_NETWORK} or wider.")


def subnet_range(environment: Environment, network: IPv4Network, subnet: IPv4Network) -> Iterator[Fault]:
    name = "platform_subnet_cidr"
    if not subnet.subnet_of(network):
        yield environment.fault(
            name,
            f"{name} is {subnet}, which lies outside platform_network_cidr {network}; choose a part of that network.",
        )
    if subnet.prefixlen > SMALLEST_SUBNET:
        yield environment.fault(name, f"{name} is {subnet}; Hetzner's subnets are /{SMALLEST_SUBNET} or wider.")


def addresses(environment: Environment, network: IPv4Network | None, subnet: IPv4Network | None) -> Iterator[Fault]:
    hosts_by_address: dict[IPv4Address, str] = {}
    for host in environment.hosts:
        setting = host.settings.get("provision_private_ip")
        if setting is None:
            yield Fault(
                host.origin, f"host {host.name} has no provision_private_ip; give it a free address of the subnet."
            )
            continue
        if setting.error:
            continue
        try:
            address = IPv4Address(str(setting.value))
        except ValueError:
            yield Fault(
                setting.origin, f"provision_private_ip of {host.name} is {show(setting.value)}; write one IPv4 address."
            )
            continue
        if address in hosts_by_address:
            yield Fault(
                setting.origin,
                f"provision_private_ip of {host.name} is {address}, which {hosts_by_address[address]} has already; "
                "choose a free one.",
            )
        hosts_by_address.setdefault(address, host.name)
        if (reason := reserved(address, network, subnet)) is not None:
            yield Fault(setting.origin, f"provision_private_ip of {host.name} is {address}, {reason}.")


def reserved(address: IPv4Address, network: IPv4Network | None, subnet: IPv4Network | None) -> str | None:
    """Why a machine cannot have an address; None if it can."""
    if network is not None and address == network[1]:
        return "the gateway of the network; choose another one of the subnet"
    if address == HETZNER_GATEWAY:
        return "which Hetzner reserves; choose another one of the subnet"
    if subnet is None:
        return None
    if address not in subnet:
        return f"which lies outside platform_subnet_cidr {subnet}; choose one inside"
    if address == subnet.network_address:
        return "the network address of the subnet; choose a later one"
    if address == subnet.broadcast_address:
        return "the broadcast address of the subnet; choose an earlier one"
    return None


def cluster_ranges(environment: Environment, network: IPv4Network | None) -> Iterator[Fault]:
    """Pod and service ranges must not overlap the private network or each other."""
    ranges: dict[str, IPv4Network] = {} if network is None else {"platform_network_cidr": network}
    for name in ("rke2_cluster_cidr", "rke2_service_cidr"):
        value = environment.value(name)
        if not isinstance(value, str):
            continue
        try:
            found = IPv4Network(value)
        except ValueError:
            yield Fault(
                environment.value_origin(name, "group_vars/all/platform.yml"),
                f"{name} is {show(value)}; write an IPv4 range, for example 10.42.0.0/16.",
            )
            continue
        for other, taken in ranges.items():
            if found.overlaps(taken):
                # The defaults do not overlap, so the value that the inventory sets is the one to change.
                culprit = name if name in environment.settings else other
                yield Fault(
                    environment.value_origin(culprit, "group_vars/all/platform.yml"),
                    f"{name} {found} overlaps {other} {taken}; choose ranges that do not overlap.",
                )
        ranges[name] = found


def admin_ranges(environment: Environment) -> Iterator[Fault]:
    name = "platform_admin_cidrs"
    ranges = environment.texts(name)
    if environment.value(name) == []:
        yield environment.fault(name, f"{name} is empty; name the ranges from which SSH and the API may be reached.")
    for value in ranges:
        try:
            if "/" not in value:
                raise ValueError("Hetzner's firewalls require a mask")
            found = ip_network(value)
        except ValueError:
            yield environment.fault(
                name, f"{name} holds {show(value)}; write CIDR ranges, one machine as 198.51.100.7/32."
            )
            continue
        if found.prefixlen < WIDEST_ADMIN_PREFIX[found.version] and not environment.value("check_world_admins_allowed"):
            yield environment.fault(
                name,
                f"{name} holds {found}, which opens SSH and the Kubernetes API to the world; name the administrators' "
                "ranges, or set check_world_admins_allowed to true if that is intended.",
            )


def endpoint(environment: Environment) -> Iterator[Fault]:
    name = "platform_hcloud_endpoint"
    value = environment.text(name)
    if value and not re.fullmatch(r"https?://[^/\s]+(/[^\s]+)*/v1", value):
        yield environment.fault(
            name, f"{name} is {show(value)}; write the address up to /v1, https://api.hetzner.cloud/v1 for Hetzner."
        )
    elif value.startswith("http://") and not is_local(urlsplit(value).hostname or ""):
        yield environment.fault(
            name, f"{name} is {show(value)}, which sends the token unencrypted through the internet; write https://."
        )


def is_local(host: str) -> bool:
    """Whether an address is private or loopback; a name counts as public, except localhost."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost"
