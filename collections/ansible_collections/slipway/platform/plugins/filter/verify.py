"""Filters of the verify role: lists of what slipway.platform.probe is to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def ingress_probes(names: list[str], address: str, authority: str, statuses: list[int]) -> list[dict[str, Any]]:
    """Three looks at every public name: TLS 1.3 answers, TLS 1.2 does not, plain HTTP leads to HTTPS."""
    probes: list[dict[str, Any]] = []
    for name in names:
        common = {"address": address, "server_name": name}
        probes += [
            {"name": f"ingress {name}", "kind": "https", "port": 443, **common}
            | {"authority": authority, "statuses": list(statuses)},
            {"name": f"redirect {name}", "kind": "redirect", "port": 80, **common},
        ]
    if names:
        probes.append(
            {"name": "TLS 1.2", "kind": "tls_refused", "port": 443, "address": address}
            | {"server_name": names[0], "authority": authority}
        )
    return probes


def closed_probes(hosts: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One probe for every port that has to be closed."""
    return [
        {"name": host["name"], "kind": "closed", "address": host["address"], "port": port}
        for host in hosts
        for port in host["ports"]
    ]


def closed_hosts(hostvars: Mapping[str, Any], hosts: list[str], ports: list[int]) -> list[dict[str, Any]]:
    """Ports that have to be closed, on the public address of every host that has one."""
    found = []
    for host in hosts:
        address = hostvars[host].get("ansible_host")
        if address and address != hostvars[host].get("provision_private_ip"):
            found.append({"name": host, "address": address, "ports": list(ports)})
    return found


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "verify_ingress_probes": ingress_probes,
            "verify_closed_probes": closed_probes,
            "verify_closed_hosts": closed_hosts,
        }
