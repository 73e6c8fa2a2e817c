"""Validate and rewrite kubeconfigs on the controller.

PyYAML and cryptography exist on the controller only; cryptography is imported where it is used.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from ansible_collections.slipway.platform.plugins.module_utils.urls import server_fault


def rewrite_kubeconfig(text: str, *, server: str, tls_name: str, name: str) -> str:
    """RKE2's admin kubeconfig with the load balancer's address, and one name for cluster, user and context.

    The API's certificate is verified under `tls_name`: the address may change while the certificate stays valid.
    A server that no client could use is a ValueError, so that it never replaces a working one.
    """
    if fault := server_fault(server):
        raise ValueError(fault)
    document = yaml.safe_load(text)
    cluster = document["clusters"][0]["cluster"]
    user = document["users"][0]["user"]
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {**cluster, "server": server, "tls-server-name": tls_name}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
            "preferences": {},
        },
        sort_keys=False,
    )


def kubeconfig_due(
    text: str, *, authority_digest: str, server: str, tls_name: str, name: str, days: int, now: datetime | None = None
) -> str:
    """Why the controller's kubeconfig has to be fetched again, or an empty text."""
    from cryptography import x509

    if not text.strip():
        return "there is none yet"
    try:
        document = yaml.safe_load(text)
        cluster = document["clusters"][0]
        authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
        certificate = x509.load_pem_x509_certificate(
            base64.b64decode(document["users"][0]["user"]["client-certificate-data"])
        )
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError):
        return "it cannot be read"
    if authority_digest and hashlib.sha256(authority.decode().strip().encode()).hexdigest() != authority_digest:
        return "it belongs to another cluster"
    endpoint = (cluster["cluster"].get("server"), cluster["cluster"].get("tls-server-name"))
    if endpoint != (server, tls_name) or cluster["name"] != name or document["current-context"] != name:
        return "address or name changed"
    if certificate.not_valid_after_utc - (now or datetime.now(UTC)) < timedelta(days=days):
        return f"its certificate expires on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without keys whose value is None, an empty text, list or mapping; False and 0 stay."""
    return {key: value for key, value in values.items() if value is not None and value not in ("", [], {})}
