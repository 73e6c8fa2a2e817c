"""server/manifests: every file is applied as an Addon, and again after a change."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import yaml

from . import log
from .api_client import ApiClient, expected
from .config import Config
from .layout import Layout
from .resources import Obj

SCAN_SECONDS = 3
MALFORMED = (ValueError, KeyError, AttributeError, TypeError)
"""Errors of a manifest that is not a Kubernetes object."""
OWNER = "objectset.rio.cattle.io/owner-name"
OBJECTS = "slipway.dev/objects"
ADDONS = "/apis/k3s.cattle.io/v1/namespaces/kube-system/addons"


class Addons:
    def __init__(self, config: Config, layout: Layout, api: ApiClient) -> None:
        self.disabled = set(config.words("disable"))
        self.folder = layout.manifests
        self.api = api
        self._seen: dict[Path, tuple[float, int]] = {}

    async def run(self) -> None:
        while True:
            await self._scan()
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
            except (OSError, TimeoutError) as fault:
                # Not ready, or a kind whose definition another manifest creates: retried at the next scan.
                log.warning(f"Failed to process config: failed to process {path}: {fault}")
                continue
            except (yaml.YAMLError, *MALFORMED) as fault:
                log.error(f"Failed to process config: failed to process {path}: {fault}")
            self._seen[path] = mark
        for path in set(self._seen) - paths:
            del self._seen[path]

    async def _apply(self, path: Path) -> None:
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        name = path.name.rsplit(".", 1)[0]
        answer = await self.api.call("GET", f"{ADDONS}/{name}")
        addon = expected(answer) if answer.status != 404 else {"metadata": {}, "spec": {}}
        if addon["spec"].get("checksum") == checksum:
            return
        before = set(json.loads((addon["metadata"].get("annotations") or {}).get(OBJECTS, "[]")))
        applied = []
        for document in yaml.safe_load_all(content):
            items = document.get("items", []) if (document or {}).get("kind") == "List" else [document]
            for item in items:
                if item:
                    applied.append(await self._apply_object(item, name))
        for obsolete in before - set(applied):
            expected(await self.api.call("DELETE", obsolete), 200, 202, 404)
        new: Obj = {
            "apiVersion": "k3s.cattle.io/v1",
            "kind": "Addon",
            "metadata": {"name": name, "namespace": "kube-system", "annotations": {OBJECTS: json.dumps(applied)}},
            "spec": {"source": str(path), "checksum": checksum},
        }
        await self.api.apply(f"{ADDONS}/{name}", new)
        log.info(f"Applied manifest {path}")

    async def _apply_object(self, item: Obj, addon: str) -> str:
        metadata = item["metadata"]
        metadata.setdefault("annotations", {})[OWNER] = addon
        path = await self.api.path_of(item)
        await self.api.apply(path, item)
        return path
