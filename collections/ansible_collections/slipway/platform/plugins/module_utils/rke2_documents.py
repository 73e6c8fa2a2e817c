"""Certificates and kubeconfigs on the controller: whether they are still good, and how they are rewritten.

Runs on the controller only, where cryptography and PyYAML are installed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature


def certificate_due(pem: str, *, authority: str, names: list[str], days: int, now: datetime | None = None) -> str:
    """Why a certificate has to be issued anew, or an empty text: absent, other authority, other names, near its end."""
    if not pem.strip():
        return "there is none yet"
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        issuer = x509.load_pem_x509_certificate(authority.encode())
    except ValueError as error:
        return f"it cannot be read ({error})"
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return "another authority issued it"
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        covered = set(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        covered = set()
    if covered != set(names):
        return f"it is for {', '.join(sorted(covered)) or 'no name'}"
    if certificate.not_valid_after_utc - (now or datetime.now(UTC)) < timedelta(days=days):
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def rewrite_kubeconfig(text: str, *, server: str, name: str) -> str:
    """RKE2's admin kubeconfig with the address that people use, and one name for cluster, user and context."""
    document = yaml.safe_load(text)
    cluster = document["clusters"][0]["cluster"]
    user = document["users"][0]["user"]
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {**cluster, "server": server}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
            "preferences": {},
        },
        sort_keys=False,
    )


def kubeconfig_due(
    text: str, *, authority_digest: str, server: str, name: str, days: int, now: datetime | None = None
) -> str:
    """Why the controller's kubeconfig has to be fetched anew, or an empty text."""
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
        return "it is of another cluster"
    if cluster["cluster"].get("server") != server or cluster["name"] != name or document["current-context"] != name:
        return "address or name changed"
    if certificate.not_valid_after_utc - (now or datetime.now(UTC)) < timedelta(days=days):
        return f"its certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without keys whose value is None, an empty text, list or mapping; False and 0 stay."""
    return {key: value for key, value in values.items() if value is not None and value not in ("", [], {})}
