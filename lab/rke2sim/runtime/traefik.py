"""What of the rke2-traefik chart's values the simulated ingress acts on; the rest is named, so that it can be said.

The settings are plain data: they lie in a file that the process of the ingress reads.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

Settings = dict[str, Any]

ENTRIES = {"web": "8000", "websecure": "8443"}
"""The chart's entry points and where Traefik listens inside its pod; hosts have 80 and 443 for them."""
TLS_VERSIONS = {
    "VersionTLS10": "TLSv1",
    "VersionTLS11": "TLSv1_1",
    "VersionTLS12": "TLSv1_2",
    "VersionTLS13": "TLSv1_3",
}
REDIRECTION = re.compile(
    r"--entrypoints\.(web|websecure)\.http\.redirections\.entrypoint\.(to|scheme|permanent)=(.*)", re.IGNORECASE
)


def understand(values: Any) -> tuple[Settings, list[str]]:
    """The settings of the ingress, and the paths of the values that are not simulated; ValueError names a wrong one."""
    if not isinstance(values, dict):
        raise ValueError(f"the values are a {type(values).__name__}, not a mapping")
    left = json.loads(json.dumps(values, default=str))  # a copy in which no part stands twice, as YAML's anchors let it
    minimum = _take(left, "tlsOptions.default.minVersion", "VersionTLS12")
    if minimum not in TLS_VERSIONS:
        raise ValueError(f"tlsOptions.default.minVersion is {minimum!r}, not one of {', '.join(TLS_VERSIONS)}")
    secret = _take(left, "tlsStore.default.defaultCertificate.secretName", "")
    redirections, unknown = _redirections(_take(left, "additionalArguments", []))
    entries = {
        entry: {
            "proxy": _ranges(left, f"ports.{entry}.proxyProtocol.trustedIPs"),
            "forwarded": _ranges(left, f"ports.{entry}.forwardedHeaders.trustedIPs"),
            "redirection": redirections.get(entry),
        }
        for entry in ENTRIES
    }
    settings = {"minimum": TLS_VERSIONS[minimum], "secret": str(secret), "entries": entries}
    return settings, [*sorted(_leaves(left)), *unknown]


def _take(tree: dict[str, Any], path: str, default: Any) -> Any:
    """The value at a path, which is taken out of the tree."""
    *parents, last = path.split(".")
    for name in parents:
        below = tree.get(name)
        if below is None:
            return default
        if not isinstance(below, dict):
            raise ValueError(f"{name} in {path} is a {type(below).__name__}, not a mapping")
        tree = below
    value = tree.pop(last, None)
    return default if value is None else value


def _leaves(tree: dict[str, Any], above: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{above}{name}.")
        else:
            found.append(f"{above}{name}")
    return found


def _ranges(tree: dict[str, Any], path: str) -> list[str]:
    ranges = _take(tree, path, [])
    if not isinstance(ranges, list):
        raise ValueError(f"{path} is a {type(ranges).__name__}, not a list")
    try:
        return [str(ipaddress.ip_network(item, strict=False)) for item in ranges]
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from fault


def _redirections(arguments: Any) -> tuple[dict[str, Settings], list[str]]:
    """By entry point, where its requests are sent, with Traefik's defaults; and all other arguments."""
    if not isinstance(arguments, list):
        raise ValueError(f"additionalArguments is a {type(arguments).__name__}, not a list")
    given: dict[str, dict[str, str]] = {}
    unknown = []
    for argument in arguments:
        match = REDIRECTION.fullmatch(str(argument))
        if match is None:
            unknown.append(str(argument))
        else:
            given.setdefault(match.group(1).lower(), {})[match.group(2).lower()] = match.group(3)
    return {entry: _redirection(entry, parts) for entry, parts in given.items()}, unknown


def _redirection(entry: str, parts: dict[str, str]) -> Settings:
    what = f"the redirection of entry point {entry}"
    to, scheme, permanent = parts.get("to", ""), parts.get("scheme", "https"), parts.get("permanent", "true").lower()
    target = re.fullmatch(r":?(\d+)", to)
    if target is None and to not in ENTRIES:
        raise ValueError(f"{what} leads to {to!r}: give :<port> or one of {', '.join(ENTRIES)}")
    if scheme not in ("http", "https"):
        raise ValueError(f"{what} has the scheme {scheme!r}, not http or https")
    if permanent not in ("true", "false"):
        raise ValueError(f"{what} is permanent: {permanent!r}, not true or false")
    # An entry point's name stands for the port inside the pod, which no client can reach: Traefik does not know better.
    port = target.group(1) if target else ENTRIES[to]
    return {"scheme": scheme, "port": port, "permanent": permanent == "true"}


def location(redirection: Settings, host: str, target: str) -> str:
    """Where a request is sent to; the port is left out where the scheme implies it."""
    name = re.sub(r":\d+$", "", host)
    implied = {"http": "80", "https": "443"}[redirection["scheme"]] == redirection["port"]
    return f"{redirection['scheme']}://{name}{'' if implied else ':' + redirection['port']}{target}"
