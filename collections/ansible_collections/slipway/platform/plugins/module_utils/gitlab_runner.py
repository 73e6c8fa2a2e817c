"""Options of GitLab Runner that belong together. Ranges and formats of each: roles/gitlab_runner/meta/formats.yml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any

PREFIX = "gitlab_runner_"


def faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each faulty option, and what is wrong with it and what to do. Options without the role's prefix."""
    yield from network_faults(options)
    yield from combination_faults(options)


def _network(value: Any) -> IPv4Network | None:
    try:
        network = ip_network(str(value))
    except ValueError:
        return None
    return network if isinstance(network, IPv4Network) else None


def network_faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for cidr in options.get("build_blocked_cidrs", ()):
        if _network(cidr) is None:
            yield "build_blocked_cidrs", f"{cidr!r} is no IPv4 network. Set an address with zeros and a length."
    subnet = _network(options.get("build_subnet"))
    if subnet is None or not subnet.is_private or not 16 <= subnet.prefixlen <= 28:
        yield "build_subnet", f"{options.get('build_subnet')!r} is no private IPv4 network of /16 to /28. Set one."
    address = _network(options.get("metrics_address"))
    blocked = [network for cidr in options.get("build_blocked_cidrs", ()) if (network := _network(cidr))]
    metadata = _network("169.254.169.254")
    for name, wanted in (
        ("the metadata service 169.254.169.254", metadata),
        ("the private address of the host", address),
    ):
        if wanted and not any(wanted.subnet_of(network) for network in blocked):
            yield "build_blocked_cidrs", f"{name} is in none of the networks. Add the network that contains it."


def combination_faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not options.get("build_token") and not options.get("deploy_token"):
        yield (
            "build_token",
            f"is empty, and so is {PREFIX}deploy_token. Create them with playbooks/operations/create_runner.yml.",
        )
    if options.get("build_token") and options.get("build_token") == options.get("deploy_token"):
        yield "deploy_token", f"is the same as {PREFIX}build_token. Create a runner for each."
    runner, server = (_minor(options.get(name)) for name in ("version", "server_version"))
    if runner and server and runner > server:
        yield (
            "version",
            f"{options['version']} is newer than the server, {options['server_version']} ({PREFIX}server_version). "
            "Upgrade the server first, or set an earlier version.",
        )
    if options.get("source") == "binary" and not options.get("binary_checksum"):
        yield "binary_checksum", f"is empty, but {PREFIX}source is binary. Set the SHA-256 of the program."
    if not options.get("build_allowed_images"):
        yield "build_allowed_images", "is empty, which allows every image. Name the images."
    if options.get("deploy_executor") == "docker" and not options.get("deploy_image"):
        yield "deploy_image", f"is empty, but {PREFIX}deploy_executor is docker. Set the execution environment."
    if options.get("cache_bucket"):
        for name in ("cache_endpoint", "cache_access_key", "cache_secret_key"):
            if not options.get(name):
                yield name, f"is empty, but {PREFIX}cache_bucket is set. Set it too."
        if options["cache_bucket"] == options.get("backup_bucket"):
            yield "cache_bucket", f"{options['cache_bucket']!r} is the bucket of the backups. Set a bucket of its own."


def _minor(version: Any) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)\.", str(version))
    return (int(match[1]), int(match[2])) if match else None


def network(name: str, identity: str, subnet: str) -> dict[str, Any]:
    """A network as podman stores it: a bridge with a fixed name, for the firewall, without a DNS server on the host."""
    return {
        "name": name,
        "id": identity,
        "driver": "bridge",
        "network_interface": name,
        "created": "2026-01-01T00:00:00Z",
        "subnets": [{"subnet": subnet, "gateway": str(ip_network(subnet)[1])}],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "ipam_options": {"driver": "host-local"},
    }


def primary_fingerprints(lines: list[str]) -> list[str]:
    """The fingerprints of primary keys in the output of `gpg --with-colons`, not those of their subkeys."""
    found, kind = [], ""
    for line in lines:
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            kind = fields[0]
        elif fields[0] == "fpr" and kind == "pub":
            found.append(fields[9])
    return found
