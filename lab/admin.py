"""A small client of the lab's admin API (`/_lab/…` beside the cloud's own), for the command line."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lab import daemon, direct
from lab.settings import Settings


class AdminError(Exception):
    """The admin API is not reachable or returned an error. The text is one message for the operator."""


@dataclass(frozen=True, slots=True)
class Admin:
    url: str
    token: str

    @classmethod
    def of(cls, settings: Settings) -> Admin:
        if not settings.description.exists():
            raise AdminError(f"Lab {settings.name!r}: not created on this machine. Create it with: lab up")
        if daemon.find(settings) is None:
            raise AdminError(f"Lab {settings.name!r}: the daemon is not running. Start it with: lab up")
        description = daemon.read_description(settings)
        return cls(url=f"http://127.0.0.1:{settings.api_port}/_lab", token=description["token"])

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = 60.0) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with direct.urlopen(request, timeout=seconds) as response:
                content, content_type = response.read(), response.headers.get_content_type()
        except urllib.error.HTTPError as error:
            raise AdminError(_message(error)) from error
        except OSError as error:
            raise AdminError(
                f"{self.url}: the lab's daemon does not respond ({error}). Read its log with: lab logs"
            ) from error
        if content_type == "application/json":
            return json.loads(content or b"null")
        return content.decode(errors="replace")

    def status(self, *, seconds: float = 60.0) -> dict[str, Any]:
        return dict(self.call("GET", "status", seconds=seconds))

    def console(self, name: str) -> str:
        reply = self.call("GET", f"servers/{quote(name, safe='')}/console")
        return str(reply["console"]) if isinstance(reply, dict) else str(reply)

    def faults(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "faults")["faults"])

    def add_fault(self, fault: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.call("POST", "faults", fault))

    def clear_faults(self, fault_id: int | None = None) -> None:
        self.call("DELETE", "faults" if fault_id is None else f"faults/{fault_id}")

    def reset(self) -> None:
        self.call("POST", "reset", seconds=300.0)


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.url}: HTTP {error.code} {error.reason}. Read the daemon's log with: lab logs"
