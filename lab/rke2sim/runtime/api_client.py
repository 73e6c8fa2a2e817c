"""A node's client of the Kubernetes API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .http import Answer, Client, client_context
from .resources import Obj


class ApiClient:
    """The Kubernetes API through several servers: the one that answered last, then the others."""

    def __init__(self, ca: Path, certificate: Path, key: Path, hosts: list[str]) -> None:
        self.context = client_context(ca, certificate, key)
        self.clients: list[Client] = []
        self.set_hosts(hosts)

    def set_hosts(self, hosts: list[str]) -> None:
        known = {client.host: client for client in self.clients}
        order = [host for host in known if host in hosts] + [host for host in hosts if host not in known]
        self.clients = [known.get(host) or Client(host, 6443, self.context) for host in order]

    @property
    def hosts(self) -> list[str]:
        return [client.host for client in self.clients]

    async def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        """The first response that is not a server error."""
        data = b"" if body is None else json.dumps(body).encode()
        last: Exception | None = None
        for client in list(self.clients):
            try:
                answer = await client.request(method, path, data, timeout=8, headers={"Content-Type": kind})
            except (OSError, TimeoutError) as fault:
                last = fault
                continue
            if answer.status < 500:
                if client is not self.clients[0]:
                    self.clients.remove(client)
                    self.clients.insert(0, client)
                return answer
            last = ConnectionError(f"{client.host} answered {answer.status}: {answer.body[:200].decode()}")
        raise ConnectionError(f"no server answered {method} {path}: {last}")

    async def merge(self, path: str, change: Obj) -> Answer:
        return await self.call("PATCH", path, change, kind="application/strategic-merge-patch+json")


def expected(answer: Answer, *codes: int) -> Obj:
    if answer.status not in (codes or (200, 201)):
        raise ConnectionError(f"the API answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    body: Obj = answer.json()
    return body
