"""server/manifests: every file is applied as an Addon, again after a change; packaged charts are files there too."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from . import log, patch
from .api import Api, Target
from .config import Config
from .etcd import EtcdError
from .layout import Layout
from .pki import write
from .resources import Obj
from .store import ApiError

SCAN_SECONDS = 3
MALFORMED = (ValueError, KeyError, AttributeError, TypeError)
"""Errors of a manifest that is not a Kubernetes object."""
OWNER = "objectset.rio.cattle.io/owner-name"

PACKAGED = (
    "rke2-coredns", "rke2-metrics-server", "rke2-snapshot-controller", "rke2-snapshot-controller-crd",
    "rke2-runtimeclasses",
)  # fmt: skip


def _workload(kind: str, name: str, image: str, **spec: Any) -> Obj:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": name, "image": image}],
                    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"},
                                    {"operator": "Exists", "effect": "NoExecute"}],
                    "priorityClassName": "system-cluster-critical",
                },
            },
            **spec,
        },
    }  # fmt: skip


def chart(name: str) -> Obj:
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"bootstrap": name in ("rke2-coredns", "rke2-canal"), "chart": f"{name} (simulation, no content)"},
    }


def packaged(config: Config, layout: Layout) -> None:
    """Write the manifests of this release and remove those that are disabled."""
    disabled = set(config.words("disable"))
    wanted: dict[str, list[Obj]] = {name: [chart(name)] for name in PACKAGED}
    wanted["rke2-coredns"].append(
        _workload("Deployment", "rke2-coredns-rke2-coredns", "rancher/hardened-coredns:simulation", replicas=1)
    )
    for cni in config.words("cni") or ["canal"]:
        if cni != "none":
            wanted[f"rke2-{cni}"] = [chart(f"rke2-{cni}")]
    ingresses = config.words("ingress-controller") or ["traefik"]
    if "traefik" in ingresses:
        traefik = _workload("DaemonSet", "rke2-traefik", "rancher/hardened-traefik:simulation")
        ingress_class = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {
                "name": "traefik",
                "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
            },
            "spec": {"controller": "traefik.io/ingress-controller"},
        }
        wanted["rke2-traefik"] = [chart("rke2-traefik"), traefik, ingress_class]
    every = set(PACKAGED) | {"rke2-traefik", "rke2-canal", "rke2-calico", "rke2-cilium", "rke2-flannel"}
    for name in every:
        path = layout.manifests / f"{name}.yaml"
        if name in wanted and name not in disabled:
            text = yaml.safe_dump_all(wanted[name], sort_keys=False)
            if not path.exists() or path.read_text() != text:
                write(path, text)
        else:
            path.unlink(missing_ok=True)


class Addons:
    def __init__(self, config: Config, layout: Layout, api: Api) -> None:
        self.disabled = set(config.words("disable"))
        self.folder = layout.manifests
        self.api = api
        self._seen: dict[Path, tuple[float, int]] = {}

    async def run(self) -> None:
        while True:
            try:
                await self._scan()
            except (ApiError, EtcdError) as fault:
                log.warning(f"manifests: {fault}")
            await asyncio.sleep(SCAN_SECONDS)

    async def _scan(self) -> None:
        paths = {
            path
            for path in self.folder.rglob("*")
            if path.suffix in (".yaml", ".yml", ".json") and path.is_file() and not path.name.startswith(".")
        }
        for path in sorted(paths):
            stat = path.stat()
            mark = stat.st_mtime, stat.st_size
            if self._seen.get(path) == mark or Path(f"{path}.skip").exists():
                continue
            try:
                await self._apply(path)
            except (ApiError, yaml.YAMLError, patch.PatchError, *MALFORMED) as fault:
                log.error(f"Failed to process config: failed to process {path}: {fault}")
                if isinstance(fault, ApiError) and (fault.code == 409 or fault.code >= 500):
                    continue  # a conflict with another server, or the store is unavailable: retried at the next scan
            self._seen[path] = mark
        for path in set(self._seen) - paths:
            del self._seen[path]

    async def _apply(self, path: Path) -> None:
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        name = path.name.rsplit(".", 1)[0]
        addons = self.api.catalogue.find("k3s.cattle.io", "v1", "addons")
        assert addons is not None
        addon = await self.api.store.find(addons, "kube-system", name)
        before: set[str] = set()
        if addon is not None:
            annotations = addon["metadata"].get("annotations") or {}
            before = set(json.loads(annotations.get("slipway.dev/objects", "[]")))
            if addon["spec"].get("checksum") == checksum:
                return
        applied: list[str] = []
        for document in yaml.safe_load_all(content):
            items = document.get("items", []) if (document or {}).get("kind") == "List" else [document]
            for item in items:
                if item:
                    applied.append(await self._apply_object(item, name))
        for obsolete in before - set(applied):
            api_version, kind, namespace, object_name = obsolete.split("|")
            resource = self.api.catalogue.by_kind(api_version, kind)
            if resource is not None:
                try:
                    await self.api.delete(resource, namespace, object_name)
                except ApiError as fault:
                    if fault.code != 404:
                        raise
        new: Obj = {
            "metadata": {"name": name, "annotations": {"slipway.dev/objects": json.dumps(applied)}},
            "spec": {"source": str(path), "checksum": checksum},
        }
        if addon is None:
            await self.api.create(addons, "kube-system", new)
        else:
            metadata = {**addon["metadata"], **new["metadata"]}
            changed = {**addon, **new, "metadata": metadata}
            await self.api.store.replace(addons, changed, addon["metadata"]["resourceVersion"])
        log.info(f"Applied manifest {path}")

    async def _apply_object(self, item: Obj, addon: str) -> str:
        """Create the object or merge it into the existing one; fields removed from the file stay in the object."""
        resource = self.api.catalogue.by_kind(item["apiVersion"], item["kind"])
        if resource is None:
            raise ValueError(f"no resource serves {item['apiVersion']} {item['kind']}")
        metadata = item["metadata"]
        namespace = metadata.get("namespace") or "default" if resource.namespaced else ""
        metadata.setdefault("annotations", {})[OWNER] = addon
        current = await self.api.store.find(resource, namespace, metadata["name"])
        if current is None:
            await self.api.create(resource, namespace, {**item, "metadata": {**metadata}})
        else:
            merged = patch.merge_patch(current, {**item, "metadata": metadata})
            for field in ("data", "spec", "rules", "subjects"):
                if field in item:
                    merged[field] = item[field]
            await self.api.update(Target(resource, namespace, metadata["name"], ""), merged)
        return "|".join((item["apiVersion"], item["kind"], namespace, metadata["name"]))
