"""The routes of Ingress objects: by host and path to the address of a Service, as Traefik's Kubernetes provider."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .resources import Obj

CLASS = "traefik"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


@dataclass(frozen=True, slots=True)
class Route:
    host: str
    """A name, `*.` and a domain, or nothing for all names."""
    path: str
    exact: bool
    address: str
    """The cluster's address of the Service; nothing when there is none."""
    port: int

    def matches(self, host: str, path: str) -> bool:
        if self.host.startswith("*."):
            if host.partition(".")[2] != self.host[2:]:
                return False
        elif self.host not in ("", host):
            return False
        prefix = self.path.rstrip("/")
        return path == self.path or (not self.exact and (path == prefix or path.startswith(f"{prefix}/")))

    @property
    def priority(self) -> tuple[bool, bool, bool, int]:
        return bool(self.host), not self.host.startswith("*."), self.exact, len(self.path)


def find(routes: Iterable[Route], host: str, path: str) -> Route | None:
    """The route with the most specific host and path."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    matching = (route for route in routes if route.matches(name.lower(), path))
    return max(matching, key=lambda route: route.priority, default=None)


def selected(ingresses: list[Obj]) -> list[Obj]:
    """The Ingress objects of this class, the oldest first; without a class they belong to every controller."""

    def class_of(item: Obj) -> Any:
        annotations = item["metadata"].get("annotations") or {}
        return item["spec"].get("ingressClassName") or annotations.get(CLASS_ANNOTATION, CLASS)

    chosen = [item for item in ingresses if class_of(item) == CLASS]
    return sorted(chosen, key=lambda item: str(item["metadata"].get("creationTimestamp")))


def table(ingresses: list[Obj], services: list[Obj]) -> list[Route]:
    known = {(item["metadata"]["namespace"], item["metadata"]["name"]): item["spec"] for item in services}
    routes = []
    for item in ingresses:
        namespace, spec = item["metadata"]["namespace"], item["spec"]
        rules = [
            (rule.get("host", "").lower(), path)
            for rule in spec.get("rules") or []
            for path in (rule.get("http") or {}).get("paths", [])
        ]
        if "defaultBackend" in spec:
            rules.append(("", {"backend": spec["defaultBackend"]}))
        for host, path in rules:
            service = path["backend"].get("service") or {}
            address, port = endpoint(known.get((namespace, service.get("name"))), service.get("port") or {})
            routes.append(Route(host, path.get("path") or "/", path.get("pathType") == "Exact", address, port))
    return routes


def endpoint(service: Obj | None, wanted: Obj) -> tuple[str, int]:
    """Address and port of a Service; headless ones and names outside of the cluster are not simulated."""
    address = (service or {}).get("clusterIP", "None")
    for port in (service or {}).get("ports") or []:
        if address != "None" and (port["port"] == wanted.get("number") or port.get("name", "") == wanted.get("name")):
            return address, port["port"]
    return "", 0


def certificates(ingresses: list[Obj]) -> dict[str, tuple[str, str]]:
    """Host → namespace and name of the Secret with its certificate."""
    return {
        host.lower(): (item["metadata"]["namespace"], entry["secretName"])
        for item in reversed(ingresses)  # the oldest is the one that counts
        for entry in item["spec"].get("tls") or []
        if entry.get("secretName")
        for host in entry.get("hosts") or []
    }
