"""Probes of a load balancer's listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}


def _reachable(address: str) -> str:
    return ANY_ADDRESS.get(address, address.strip("[]"))


def _name(pattern: str) -> str:
    """A name that the pattern covers."""
    return pattern.replace("*", "slipway-probe", 1)


def load_balancer_probes(
    listeners: Sequence[Sequence[str]], certificate_path: str, passthrough: bool = False
) -> list[dict[str, Any]]:
    """Probes of the web, API and join ports, with a TLS handshake for each name where this host terminates TLS.

    `listeners` are the addresses for web, API and join, and the served names.
    """
    web, api, join, names = listeners
    probes: list[dict[str, Any]] = []
    for address in map(_reachable, web):
        probes.append({"address": address, "port": 80})
        if certificate_path:
            for name in map(_name, names):
                probes.append(
                    {
                        "address": address,
                        "port": 443,
                        "tls": True,
                        "server_name": name,
                        "certificate_path": certificate_path,
                    }
                )
        elif passthrough:
            probes.append({"address": address, "port": 443})
    probes += [{"address": address, "port": 6443} for address in map(_reachable, api)]
    probes += [{"address": address, "port": 9345} for address in map(_reachable, join)]
    return probes


class FilterModule:
    """Filters of the role load_balancer."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"load_balancer_probes": load_balancer_probes}
