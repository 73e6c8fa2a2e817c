"""The ingress's settings, read from the cluster: values of its HelmChartConfig, Ingress objects and certificates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import yaml

from . import ingress_routes, log, traefik
from .api_client import ApiClient, expected
from .pki import new_key, openssl, write

POLL_SECONDS = 5
VALUES = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmchartconfigs/rke2-traefik"
SECRETS = "/api/v1/namespaces/{}/secrets/{}"
INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
SERVICES = "/api/v1/services"


class IngressSettings:
    """The files of the ingress in a folder, converged to the cluster."""

    def __init__(self, folder: Path, node: str, api: ApiClient) -> None:
        self.folder = folder
        self.node = node
        self.api = api
        self.read: str | None = None
        """The values of the last read, so that each error is logged once."""

    def prepare(self) -> None:
        """Files that serve until the first read: a self-signed certificate and the chart's defaults."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "tls.key").exists():
            self._self_signed()
        if not (self.folder / "settings.json").exists():
            self.apply_values("")

    async def follow(self, changed: Callable[[], None]) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, ValueError, KeyError):  # retried at the next poll
                if await self._update():
                    changed()
            await asyncio.sleep(POLL_SECONDS)

    def _self_signed(self) -> None:
        key = self.folder / "tls.key"
        write(key, new_key())
        pem = openssl(
            "req", "-x509", "-new", "-key", str(key), "-days", "365", "-subj", "/CN=TRAEFIK DEFAULT CERT",
            "-addext", "subjectAltName=DNS:traefik.default",
        )  # fmt: skip
        write(self.folder / "tls.crt", pem)

    async def _update(self) -> bool:
        answer = await self.api.call("GET", VALUES)
        if answer.status not in (200, 404):
            return False
        changed = self.apply_values(answer.json()["spec"].get("valuesContent", "") if answer.status == 200 else "")
        if name := self._settings().get("secret"):
            changed = await self._apply_certificate("kube-system", name, self.folder) or changed
        return await self._apply_routes() or changed

    async def _apply_routes(self) -> bool:
        """Routes and certificates of Ingress objects; True when they changed."""
        ingresses = ingress_routes.selected(expected(await self.api.call("GET", INGRESSES))["items"])
        services = expected(await self.api.call("GET", SERVICES))["items"] if ingresses else []
        changed = False
        folders = {}
        for host, (namespace, name) in ingress_routes.certificates(ingresses).items():
            folder = self.folder / "certificates" / f"{namespace}.{name}"
            changed = await self._apply_certificate(namespace, name, folder) or changed
            if (folder / "tls.key").exists():
                folders[host] = str(folder)
        routes = [asdict(route) for route in ingress_routes.table(ingresses, services)]
        text = json.dumps({"routes": routes, "certificates": folders})
        path = self.folder / "routes.json"
        if path.exists() and path.read_text() == text:
            return changed
        write(path, text)
        return True

    def _settings(self) -> traefik.Settings:
        path = self.folder / "settings.json"
        settings: traefik.Settings = json.loads(path.read_text()) if path.exists() else {}
        return settings

    def apply_values(self, content: str) -> bool:
        """Apply the chart's values; True when the settings changed. Invalid values change nothing, as with Helm."""
        if content == self.read:
            return False
        self.read = content
        try:
            settings, ignored = traefik.parse_values(yaml.safe_load(content) or {})
        except (yaml.YAMLError, ValueError) as fault:
            log.error(f"HelmChartConfig rke2-traefik is invalid, the ingress keeps its settings: {fault}")
            return False
        if ignored:
            log.warning(f"HelmChartConfig rke2-traefik: the simulation ignores {', '.join(ignored)}")
        settings["node"] = self.node
        if settings == self._settings():
            return False
        write(self.folder / "settings.json", json.dumps(settings))
        return True

    async def _apply_certificate(self, namespace: str, name: str, folder: Path) -> bool:
        secret = await self.api.call("GET", SECRETS.format(quote(namespace), quote(name)))
        data = (secret.json().get("data") or {}) if secret.status == 200 else {}
        pair = [base64.b64decode(data.get(file, "")) for file in ("tls.crt", "tls.key")]
        if not all(pair):
            return False
        paths = [folder / file for file in ("tls.crt", "tls.key")]
        if all(path.exists() for path in paths) and [path.read_bytes() for path in paths] == pair:
            return False
        for path, content in zip(paths, pair, strict=True):
            write(path, content)
        return True
