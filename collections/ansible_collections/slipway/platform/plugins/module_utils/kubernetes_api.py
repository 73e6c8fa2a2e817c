"""The Kubernetes API from a server of the cluster, with RKE2's own kubeconfig and Python's standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import read_admin

Json = dict[str, Any]
FIELD_MANAGER = "slipway"
TIMEOUT_SECONDS = 30
BUSY = (429, 500, 502, 503, 504)
"""Responses that may pass by themselves: of an overloaded or starting API server, or of a webhook that is not ready."""


class ApiError(Exception):
    """The API did not do what was asked; `permanent` when a retry gives the same response."""

    def __init__(self, text: str, *, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


class UnknownKind(ApiError):
    """The API serves no such kind: its definition does not exist, or not yet."""


def label(manifest: Mapping[str, Any]) -> str:
    """`Secret cattle-system/tls-ca`: how messages name an object."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    return f"{manifest['kind']} {namespace}{'/' if namespace else ''}{metadata['name']}"


class KubernetesApi:
    """Calls of one module run, over one connection."""

    def __init__(self) -> None:
        self._connection: http.client.HTTPSConnection | None = None
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Status and body; a connection that the server closed is opened again once."""
        text = None if body is None else json.dumps(body)
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    server, context, _ = read_admin()
                    address = urlsplit(server)
                    self._connection = http.client.HTTPSConnection(
                        address.hostname or "", address.port or 443, context=context, timeout=TIMEOUT_SECONDS
                    )
                self._connection.request(method, path, text, {"Content-Type": kind, "Accept": "application/json"})
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                if attempt == 2:
                    raise ApiError(
                        f"the Kubernetes API does not answer {method} {path.partition('?')[0]}: {error}"
                    ) from error
        raise AssertionError("unreachable")

    def text(self, path: str) -> str:
        """A log; empty when there is none."""
        status, content = self.call("GET", path)
        return content.decode(errors="replace") if status == 200 else ""

    def get(self, path: str) -> Json | None:
        """An object or list; None if it does not exist."""
        status, content = self.call("GET", path)
        if status == 404:
            return None
        return self._expected("GET", path, status, content)

    def items(self, path: str) -> list[Json]:
        found: list[Json] = (self.get(path) or {}).get("items", [])
        return found

    def path(self, manifest: Mapping[str, Any]) -> str:
        """The path of an object, by the API's own list of kinds."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        known = self._resources.get(version)
        if known is None or kind not in known:
            known = self._resources[version] = {
                resource["kind"]: (resource["name"], resource["namespaced"])
                for resource in (self.get(base) or {}).get("resources", [])
                if "/" not in resource["name"]
            }
        if kind not in known:
            raise UnknownKind(f"the Kubernetes API serves no {kind} of {version}")
        name, namespaced = known[kind]
        metadata = manifest["metadata"]
        folder = f"/namespaces/{metadata.get('namespace') or 'default'}" if namespaced else ""
        return f"{base}{folder}/{name}/{quote(metadata['name'])}"

    def live(self, manifest: Mapping[str, Any]) -> Json | None:
        """The object as it is; None if it, or its kind, does not exist."""
        try:
            return self.get(self.path(manifest))
        except UnknownKind:
            return None

    def apply(self, manifest: Mapping[str, Any]) -> Json:
        """Create or update an object; fields that an earlier apply set and this one does not are removed."""
        path = f"{self.path(manifest)}?fieldManager={FIELD_MANAGER}&force=true"
        status, content = self.call("PATCH", path, manifest, "application/apply-patch+yaml")
        return self._expected("apply", label(manifest), status, content)

    def delete(self, manifest: Mapping[str, Any]) -> None:
        status, content = self.call("DELETE", self.path(manifest))
        if status != 404:
            self._expected("delete", label(manifest), status, content)

    @staticmethod
    def _expected(verb: str, what: str, status: int, content: bytes) -> Json:
        if status in (200, 201, 202):
            body: Json = json.loads(content)
            return body
        try:
            reason = json.loads(content).get("message", "")
        except ValueError:
            reason = content.decode(errors="replace")
        raise ApiError(
            f"the Kubernetes API rejects {verb} of {what.partition('?')[0]} with status {status}: {reason[:500]}",
            permanent=status not in BUSY and status != 404 and status != 409,
        )
