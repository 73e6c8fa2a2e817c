"""Addresses that are requested directly although the environment names a proxy."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether a proxy elsewhere cannot reach the host: loopback, or an address that is not routed on the internet."""
    try:
        return not ip_address(host.strip("[]")).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def bypass(environment: MutableMapping[str, str], hosts: Iterable[str] = ()) -> None:
    """Add loopback and the hosts to no_proxy, for this process and its children, if a proxy is set."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        return
    known = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    names = [name.strip() for name in known if name.strip()]
    if "*" in names:
        return
    value = ",".join(dict.fromkeys([*names, *LOOPBACK, *hosts]))
    # Programs read one or the other.
    environment["no_proxy"] = environment["NO_PROXY"] = value
