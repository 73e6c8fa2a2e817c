"""URLs composed of a host and a port: an IPv6 address gets brackets."""

from __future__ import annotations

from ipaddress import IPv6Address
from urllib.parse import urlsplit


def https_url(host: str, port: int) -> str:
    return f"https://{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """The host as a URL or `<host>:<port>` has it."""
    try:
        IPv6Address(host)
    except ValueError:
        return host
    return f"[{host}]"


def server_fault(url: str) -> str:
    """Why the URL is not that of a server, or an empty text."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    return "" if usable else f"{url!r} is not the URL of a server, such as https://203.0.113.7:6443"
