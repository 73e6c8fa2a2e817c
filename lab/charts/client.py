"""The Kubernetes API for simulations in pods of the lab; Python's standard library only."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Refused(Exception):
    """The Kubernetes API rejected a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Cluster:
    """The Kubernetes API with the rights of the pod's service account."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self.url = f"https://{host}:{port}"
        self.context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        # RKE2's own certificate authorities lack the key usage that Python's strict mode requires.
        self.context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
        request.add_header("Content-Type", kind)
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=10, context=self.context) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")[:300]) from error

    def get(self, path: str) -> Any:
        """The object, or None."""
        try:
            return self.call("GET", path)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def create(self, folder: str, item: dict[str, Any]) -> bool:
        """Whether the object was created; one that is there stays as it is."""
        try:
            self.call("POST", folder, item)
        except Refused as error:
            if error.status == 409:
                return False
            raise
        return True

    def delete(self, path: str) -> None:
        """Another replica may have deleted it."""
        try:
            self.call("DELETE", path)
        except Refused as error:
            if error.status != 404:
                raise

    def merge(self, path: str, change: dict[str, Any]) -> None:
        self.call("PATCH", path, change, "application/merge-patch+json")
