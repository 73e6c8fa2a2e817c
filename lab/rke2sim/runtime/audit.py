"""The audit log, at level Metadata for every write request; the rules of the policy are not evaluated."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from .config import Config
from .http import Request
from .layout import Layout

MAX_BYTES = 100 * 1024 * 1024


class Audit:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, config: Config, layout: Layout) -> Audit | None:
        """Only with a policy file or the CIS profile, as upstream."""
        if not config.text("audit-policy-file") and config.text("profile") != "cis":
            return None
        path = config.component_arg("kube-apiserver-arg", "audit-log-path", str(layout.server / "logs" / "audit.log"))
        return cls(Path(path))

    def __call__(self, request: Request, user: str, status: int) -> None:
        if request.method in ("GET", "HEAD"):
            return
        event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "stage": "ResponseComplete",
            "requestURI": request.target,
            "verb": request.method.lower(),
            "user": {"username": user},
            "sourceIPs": [request.remote],
            "userAgent": request.headers.get("user-agent", ""),
            "responseStatus": {"code": status},
            "stageTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            self.path.rename(f"{self.path}.1")
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")
