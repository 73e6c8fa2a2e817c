"""Faults injected into the API. They end with the daemon; faults of links belong to the machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

from pydantic import Field

from lab.cloud import errors
from lab.cloud.errors import ApiError
from lab.cloud.wire.base import Body
from lab.machines.base import MachineError


class ApiFault(Body):
    """Body of `POST /_lab/faults` for the API. Without `count` the fault remains until it is removed."""

    kind: Literal["out_of_stock", "rate_limit", "locked", "action_error", "slow", "error"]
    count: int | None = Field(default=None, ge=1)
    server_type: str | None = None
    """out_of_stock: only this type."""
    location: str | None = None
    """out_of_stock: only this location."""
    announced: bool = False
    """out_of_stock: also shown in the catalogue. Hetzner often lists sold-out types as available."""
    command: str | None = None
    """action_error: only actions of this command, for example `create_server`."""
    seconds: float = Field(default=1.0, ge=0, le=600)
    """slow: delay of the response; action_error: how long the action runs before it fails."""
    status: int = Field(default=503, ge=500, le=599)
    """error: the HTTP status."""
    method: str | None = None
    path: str | None = None
    """rate_limit, locked, slow, error: only requests of this method, and with this path prefix (`/v1/servers`)."""


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    fault: ApiFault
    left: int | None


_BY_STATUS: dict[int, type[ApiError]] = {
    500: errors.ServerError,
    502: errors.BadGateway,
    503: errors.Unavailable,
    504: errors.Timeout,
}


class Faults:
    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._lock = Lock()
        self._entries: dict[int, Entry] = {}
        self._next = 1

    def add(self, fault: ApiFault) -> Entry:
        with self._lock:
            entry = Entry(self._next, fault, fault.count)
            self._next += 1
            self._entries[entry.id] = entry
            return entry

    def remove(self, id: int | None = None) -> None:
        """Remove one fault, or all."""
        with self._lock:
            if id is None:
                self._entries.clear()
            elif self._entries.pop(id, None) is None:
                raise errors.NotFound.of("fault", id)

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())

    def _take(self, kind: str, matches: Callable[[ApiFault], bool]) -> ApiFault | None:
        """The first fault of a kind that matches; its counter is decremented."""
        with self._lock:
            for entry in self._entries.values():
                if entry.fault.kind == kind and matches(entry.fault):
                    if entry.left is not None:
                        self._entries[entry.id] = replace(entry, left=entry.left - 1)
                        if entry.left <= 1:
                            del self._entries[entry.id]
                    return entry.fault
        return None

    def before_request(self, method: str, path: str, limit: int) -> float:
        """Raise the error injected for this request; otherwise return the delay of the response in seconds."""

        def matches(fault: ApiFault) -> bool:
            return fault.method in (None, method) and path.startswith(fault.path or "")

        if self._take("rate_limit", matches):
            raise errors.RateLimitExceeded(limit)
        if fault := self._take("error", matches):
            kind = _BY_STATUS.get(fault.status, errors.ServerError)
            raise kind(f"injected fault: {fault.status} on {method} {path}")
        if method != "GET" and self._take("locked", matches):
            raise errors.Locked("injected fault: the item you are trying to access is locked")
        slow = self._take("slow", matches)
        return slow.seconds if slow else 0.0

    def sold_out(self, server_type: str, location: str) -> bool:
        return self._take("out_of_stock", lambda fault: _covers(fault, server_type, location)) is not None

    def announced(self, server_type: str, locations: tuple[str, ...]) -> frozenset[str]:
        """Locations shown as sold out in the catalogue."""
        faults = [
            entry.fault for entry in self.entries() if entry.fault.kind == "out_of_stock" and entry.fault.announced
        ]
        return frozenset(name for name in locations if any(_covers(fault, server_type, name) for fault in faults))

    def before_job(self, command: str) -> None:
        fault = self._take("action_error", lambda fault: fault.command in (None, command))
        if fault:
            self._sleep(fault.seconds)
            raise MachineError(f"injected fault: {command} failed")


def _covers(fault: ApiFault, server_type: str, location: str) -> bool:
    return fault.server_type in (None, server_type) and fault.location in (None, location)
