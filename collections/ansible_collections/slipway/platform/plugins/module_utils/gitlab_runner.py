"""Options of GitLab Runner that its argument spec cannot express: ranges, formats and what belongs together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any

PREFIX = "gitlab_runner_"
RANGES: Mapping[str, tuple[float, float]] = {
    "build_id": (0, 2**63 - 1),
    "deploy_id": (0, 2**63 - 1),
    "concurrent": (1, 100),
    "check_interval_seconds": (1, 60),
    "drain_timeout_seconds": (1, 86400),
    "output_limit_kb": (64, 1048576),
    "metrics_port": (1024, 65535),
    "build_limit": (1, 100),
    "build_memory_mb": (64, 1048576),
    "build_cpus": (0.1, 256),
    "deploy_limit": (1, 100),
    "prune_hours": (1, 8760),
}
ADDRESS = r"(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}"
NAME = r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?"
IMAGE = r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?"
FORMATS: Mapping[str, tuple[str, str]] = {
    "url": (rf"https://{NAME}(:\d+)?", "https://<name>, with a port at most"),
    "version": (r"\d+\.\d+\.\d+", "three numbers, for example 19.3.0"),
    "server_version": (r"\d+\.\d+\.\d+(-[\w.-]+)?", "three numbers, for example 19.3.1"),
    "apt_url": (r"https?://\S+", "the address of an apt repository"),
    "apt_key_url": (r"https?://\S+", "the address of a key"),
    "apt_key_fingerprint": (r"[0-9A-Fa-f]{40}", "40 hexadecimal digits"),
    "binary_url": (r"https?://\S+", "the address of the program"),
    "binary_checksum": (r"([0-9a-f]{64})?", "64 hexadecimal digits in lower case"),
    "build_token": (r"(glrt-[\w.-]{20,})?", "an authentication token of GitLab, glrt-…"),
    "deploy_token": (r"(glrt-[\w.-]{20,})?", "an authentication token of GitLab, glrt-…"),
    "metrics_address": (ADDRESS, "an IPv4 address"),
    "build_image": (IMAGE, "an image with its registry, for example docker.io/library/debian:13"),
    "build_user": (r"(\d+(:\d+)?)?", "number or number:number"),
    "deploy_image": (rf"({IMAGE})?", "an image with its registry"),
    "cache_bucket": (r"([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?", "the name of a bucket"),
    "cache_endpoint": (rf"({NAME}(:\d+)?)?", "the name of an S3 store, with a port at most"),
    "cache_region": (r"[\w-]*", "the name of a region"),
    "cache_access_key": (r"\S*", "a key without blanks"),
    "cache_secret_key": (r"\S*", "a key without blanks"),
    "backup_bucket": (r"\S*", "the name of a bucket"),
    "prune_schedule": (r"[\w*:/., ~-]+", "an OnCalendar expression of systemd"),
}
SECRETS = ("token", "_key")
ELEMENTS: Mapping[str, tuple[str, str]] = {
    "build_allowed_images": (r"[\w*?.:/@-]+", "a pattern of images"),
    "build_added_capabilities": (r"[A-Z][A-Z_]*", "a capability without CAP_, for example CHOWN"),
}


def faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each faulty option, and what is wrong with it and what to do. Options without the role's prefix."""
    yield from range_faults(options)
    yield from format_faults(options)
    yield from network_faults(options)
    yield from combination_faults(options)


def range_faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, (low, high) in RANGES.items():
        if name in options and not low <= _number(options[name]) <= high:
            yield name, f"{options[name]!r} is not from {low} to {high}. Set a number in that range."


def _number(value: Any) -> float:
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return float("nan")


def format_faults(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, (pattern, wanted) in FORMATS.items():
        if name in options and not re.fullmatch(pattern, str(options[name])):
            shown = "the value" if name.endswith(SECRETS) else repr(options[name])
            yield name, f"{shown} has another format. Set {wanted}."
    for name, (pattern, wanted) in ELEMENTS.items():
        for value in options.get(name, ()):
            if not re.fullmatch(pattern, str(value)):
                yield name, f"the element {value!r} has another format. Set {wanted}."
    for port in options.get("build_allowed_ports", ()):
        if not 1 <= _number(port) <= 65535:
            yield "build_allowed_ports", f"{port!r} is not from 1 to 65535. Set a TCP port."


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
