"""A test double of the Kubernetes API for the simulations of charts."""

from __future__ import annotations

import json
from typing import Any

from lab.charts.client import Cluster, Refused


class Resources(Cluster):
    """A Kubernetes API in memory, as far as the simulations use one."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        """Plural names that have lists, empty ones too."""
        self.objects: dict[str, dict[str, Any]] = {}

    def items_of(self, plural: str) -> list[dict[str, Any]]:
        return [item for key, item in self.objects.items() if key.split("/")[-2] == plural]

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        path = path.removesuffix("/status")
        if method == "POST":
            key = f"{path}/{body['metadata']['name']}"
            if key in self.objects:
                raise Refused(409, "exists")
            self.objects[key] = json.loads(json.dumps(body))
            return self.objects[key]
        if method == "GET" and path not in self.objects:
            items = [item for key, item in self.objects.items() if key.rpartition("/")[0] == path]
            if items or path.rpartition("/")[2] in self.kinds:
                return {"items": items}
        if path not in self.objects:
            raise Refused(404, "not found")
        if method == "DELETE":
            return self.objects.pop(path)
        if method == "PATCH":
            self.objects[path].update(body)
        return self.objects[path]
