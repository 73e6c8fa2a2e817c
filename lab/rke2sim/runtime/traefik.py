"""The values of the rke2-traefik chart that the simulated ingress supports; the caller logs the others.

The settings are plain data, in a file that the ingress process reads.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

Settings = dict[str, Any]

ENTRIES = {"web": "8000", "websecure": "8443"}
"""The chart's entry points and their ports in the pod; the host ports are 80 and 443."""
TLS_VERSIONS = {
    "VersionTLS10": "TLSv1",
    "VersionTLS11": "TLSv1_1",
    "VersionTLS12": "TLSv1_2",
    "VersionTLS13": "TLSv1_3",
}
REDIRECTION = re.compile(
    r"--entrypoints\.(web|websecure)\.http\.redirections\.entrypoint\.(to|scheme|permanent)=(.*)", re.IGNORECASE
)


def parse_values(values: Any) -> tuple[Settings, list[str]]:
    """The settings of the ingress, and the paths of values that are not simulated; ValueError for an invalid value."""
    if not isinstance(values, dict):
        raise ValueError(f"the values are a {type(values).__name__}, not a mapping")
    remaining = json.loads(json.dumps(values, default=str))  # a copy without shared parts, which YAML's anchors create
    minimum = _pop(remaining, "tlsOptions.default.minVersion", "VersionTLS12")
    if minimum not in TLS_VERSIONS:
        raise ValueError(f"tlsOptions.default.minVersion is {minimum!r}, not one of {', '.join(TLS_VERSIONS)}")
    secret = _pop(remaining, "tlsStore.default.defaultCertificate.secretName", "")
    redirections, unknown = _redirections(_pop(remaining, "additionalArguments", []))
    entries = {
        entry: {
            "proxy": _ranges(remaining, f"ports.{entry}.proxyProtocol.trustedIPs"),
            "forwarded": _ranges(remaining, f"ports.{entry}.forwardedHeaders.trustedIPs"),
            "redirection": redirections.get(entry),
        }
        for entry in ENTRIES
    }
    settings = {"minimum": TLS_VERSIONS[minimum], "secret": str(secret), "entries": entries}
    return settings, [*sorted(_leaf_paths(remaining)), *unknown]


def _pop(tree: dict[str, Any], path: str, default: Any) -> Any:
    """Remove the value at a path from the tree and return it."""
    *parents, last = path.split(".")
    for name in parents:
        child = tree.get(name)
        if child is None:
            return default
        if not isinstance(child, dict):
            raise ValueError(f"{name} in {path} is a {type(child).__name__}, not a mapping")
        tree = child
    value = tree.pop(last, None)
    return default if value is None else value


def _leaf_paths(tree: dict[str, Any], above: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _leaf_paths(value, f"{above}{name}.")
        else:
            found.append(f"{above}{name}")
    return found


def _ranges(tree: dict[str, Any], path: str) -> list[str]:
    ranges = _pop(tree, path, [])
    if not isinstance(ranges, list):
        raise ValueError(f"{path} is a {type(ranges).__name__}, not a list")
    try:
        return [str(ipaddress.ip_network(item, strict=False)) for item in ranges]
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from fault


def _redirections(arguments: Any) -> tuple[dict[str, Settings], list[str]]:
    """Entry point → its redirection, with Traefik's defaults; and all other arguments."""
    if not isinstance(arguments, list):
        raise ValueError(f"additionalArguments is a {type(arguments).__name__}, not a list")
    parts_by_entry: dict[str, dict[str, str]] = {}
    unknown = []
    for argument in arguments:
        match = REDIRECTION.fullmatch(str(argument))
        if match is None:
            unknown.append(str(argument))
        else:
            parts_by_entry.setdefault(match.group(1).lower(), {})[match.group(2).lower()] = match.group(3)
    return {entry: _redirection(entry, parts) for entry, parts in parts_by_entry.items()}, unknown


def _redirection(entry: str, parts: dict[str, str]) -> Settings:
    what = f"the redirection of entry point {entry}"
    to, scheme, permanent = parts.get("to", ""), parts.get("scheme", "https"), parts.get("permanent", "true").lower()
    target = re.fullmatch(r":?(\d+)", to)
    if target is None and to not in ENTRIES:
        raise ValueError(f"{what} leads to {to!r}. Set :<port> or one of {', '.join(ENTRIES)}.")
    if scheme not in ("http", "https"):
        raise ValueError(f"{what} has the scheme {scheme!r}, not http or https")
    if permanent not in ("true", "false"):
        raise ValueError(f"{what} is permanent: {permanent!r}, not true or false")
    # The name of an entry point means its port in the pod, which clients cannot reach; Traefik has the same behaviour.
    port = target.group(1) if target else ENTRIES[to]
    return {"scheme": scheme, "port": port, "permanent": permanent == "true"}


def location(redirection: Settings, host: str, target: str) -> str:
    """The URL of a redirect, without the default port of the scheme."""
    name = re.sub(r":\d+$", "", host)
    implied = {"http": "80", "https": "443"}[redirection["scheme"]] == redirection["port"]
    return f"{redirection['scheme']}://{name}{'' if implied else ':' + redirection['port']}{target}"
