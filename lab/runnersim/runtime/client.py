"""GitLab's runner API over HTTPS."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; status 0 is a server that cannot be reached, with the reason in `body`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


class Client:
    def __init__(self, url: str, ca_file: str = "") -> None:
        self._base = f"{url}/api/v4"
        self._context = ssl.create_default_context(cafile=ca_file or None) if url.startswith("https") else None

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}/{path}", data=data, method=method)
        request.add_header("User-Agent", "gitlab-runner simulation")
        if data is not None and "Content-Type" not in headers:
            request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=self._context) as answer:
                return _answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return _answer(error.code, error.headers, error.read())
        except OSError as error:
            return Answer(0, body=str(error).encode())


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body)
