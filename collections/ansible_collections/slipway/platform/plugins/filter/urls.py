"""URLs composed of a host and a port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import urls


def https_url(host: str, port: int) -> str:
    """https:// with the host, an IPv6 address in brackets, and the port."""
    return urls.https_url(str(host), int(port))


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"https_url": https_url}
