"""A client of the Kubernetes API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .http import Answer, Client, client_context
from .resources import Obj

MANAGER = "rke2"
"""Field manager of server-side apply."""


class ApiClient:
    """The Kubernetes API through several servers: the one that answered last, then the others."""

    def __init__(
        self,
        ca: Path,
        certificate: Path | None,
        key: Path | None,
        hosts: list[str],
        *,
        port: int = 6443,
        token_file: Path | None = None,
    ) -> None:
        context = client_context(ca, certificate, key)
        self.clients = [Client(host, port, context) for host in hosts]
        self.token_file = token_file
        """The token of a service account, in place of a certificate; the kubelet renews the file."""
        self._paths: dict[tuple[str, str], tuple[str, bool]] = {}

    async def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        """The first response that is not a server error."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {self.token_file.read_text().strip()}"
        last: Exception | None = None
        for client in list(self.clients):
            try:
                answer = await client.request(method, path, data, timeout=8, headers=headers)
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

    async def replace_finalizers(self, path: str, finalizers: list[str]) -> Answer:
        return await self.call(
            "PATCH", path, {"metadata": {"finalizers": finalizers}}, kind="application/merge-patch+json"
        )

    async def apply(self, path: str, item: Obj) -> Obj:
        """Create or update an object; fields that an earlier apply set and this one does not are removed.

        ValueError for an object that the API rejects as invalid.
        """
        query = f"?fieldManager={MANAGER}&force=true"
        answer = await self.call("PATCH", path + query, item, kind="application/apply-patch+yaml")
        if answer.status in (400, 422):
            raise ValueError(f"{path}: {answer.json().get('message')}")
        return expected(answer)

    async def path_of(self, item: Obj) -> str:
        """The path of an object, by the API's own list of kinds; ConnectionError while it serves none of this kind."""
        version, kind = item["apiVersion"], item["kind"]
        if (version, kind) not in self._paths:
            base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            answer = await self.call("GET", base)
            listed = answer.json()["resources"] if answer.status == 200 else []
            for resource in listed:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    self._paths[version, kind] = f"{base}/{{}}{resource['name']}", resource["namespaced"]
        if (version, kind) not in self._paths:
            raise ConnectionError(f"no resource serves {version} {kind}")
        template, namespaced = self._paths[version, kind]
        metadata = item["metadata"]
        folder = f"namespaces/{metadata.get('namespace') or 'default'}/" if namespaced else ""
        return f"{template.format(folder)}/{metadata['name']}"


def expected(answer: Answer, *codes: int) -> Obj:
    if answer.status not in (codes or (200, 201)):
        raise ConnectionError(f"the API answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    body: Obj = answer.json()
    return body
