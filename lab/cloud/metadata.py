"""Responses of the metadata service at 169.254.169.254."""

from __future__ import annotations

from typing import Any

import yaml

from lab.cloud.domain import networks
from lab.cloud.domain.objects import Network, Server
from lab.cloud.domain.view import View, location_of

ROOT = "/hetzner/v1"


def respond(view: View, server: Server, path: str) -> tuple[int, str, str] | None:
    """HTTP status, content type and body; None for an unknown path."""
    path = path.partition("?")[0].rstrip("/")
    if path == f"{ROOT}/userdata":
        return 200, "text/plain; charset=utf-8", server.user_data
    location, ipv4 = location_of(server), view.ip(server, "ipv4")
    facts: dict[str, Any] = {
        "availability-zone": location.availability_zone,
        "hostname": server.name,
        "instance-id": server.id,
        "public-ipv4": ipv4.ip if ipv4 else "",
        "region": location.network_zone,
    }
    if path == f"{ROOT}/metadata":
        keys = {"public-keys": list(server.ssh_keys)}
        return 200, "text/plain; charset=utf-8", yaml.safe_dump(facts | keys, sort_keys=True)
    if path == f"{ROOT}/metadata/private-networks":
        return 200, "text/plain; charset=utf-8", yaml.safe_dump(_private(view, server), sort_keys=False)
    name = path.removeprefix(f"{ROOT}/metadata/")
    if name in facts:
        return 200, "text/plain; charset=utf-8", str(facts[name])
    return None


def _private(view: View, server: Server) -> list[dict[str, Any]]:
    rows = []
    for attachment in server.attachments:
        network = view.tx.get(Network, attachment.network)
        if network is None:
            continue
        rows.append({
            "ip": attachment.ip,
            "alias_ips": list(attachment.alias_ips),
            "interface_num": attachment.number,
            "mac_address": attachment.mac_address,
            "network_id": network.id,
            "network_name": network.name,
            "network": network.ip_range,
            "subnet": networks.subnet_of(network, attachment.ip),
            "gateway": network.gateway,
        })  # fmt: skip
    return rows
