"""Requests to this machine itself, which a proxy of the environment cannot reach."""

from __future__ import annotations

import ssl
import urllib.request
from http.client import HTTPResponse
from typing import cast


def urlopen(request: urllib.request.Request, timeout: float, context: ssl.SSLContext | None = None) -> HTTPResponse:
    """As urllib.request.urlopen, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    return cast(HTTPResponse, opener.open(request, timeout=timeout))
