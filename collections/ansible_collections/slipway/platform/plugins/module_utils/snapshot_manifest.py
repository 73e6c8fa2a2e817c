"""The manifest of an object in the bucket: what it is, how it is verified, and what a restore needs.

It is an object of its own, `manifests/<key>.json`: RKE2 lists and expires every object in its folder as a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime

from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import token_digest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry

SCHEMA = 1
VERSION = "0.1.0"
"""Of the platform; written to each manifest."""
PREFIX = "manifests/"
SUFFIX = ".json"
PRODUCER = f"slipway s3_snapshot {VERSION}"
FINGERPRINT_DIGITS = 16
PARTS = ("etcd", "postgresql", "ceph", "rancher", "volumes", "config")
"""Each part is a prefix of the bucket, and has a writer of its own."""


class ManifestError(Exception):
    """A document that is not a manifest of this schema."""


@dataclass(frozen=True)
class Manifest:
    part: str
    environment: str
    object: str
    """The key of the object."""
    size_bytes: int
    sha256: str
    created: str
    """UTC, RFC 3339."""
    host: str
    address: str
    software: Mapping[str, str]
    requires: tuple[str, ...] = ()
    """Names of the escrow's entries, without which the object is useless."""
    token_fingerprint: str = ""
    """Of etcd alone: see `fingerprint`."""
    etag: str = ""
    """Of the object when it was verified; another one means that the object was replaced."""
    max_age_seconds: int = 0
    """The age at which the schedule has a newer one; 0 if no schedule is known."""
    producer: str = PRODUCER
    schema: int = field(default=SCHEMA)

    def to_json(self) -> str:
        document = {name: value for name, value in asdict(self).items() if value or name in REQUIRED}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"is no JSON ({error})") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            schema = document.get("schema") if isinstance(document, dict) else None
            raise ManifestError(f"has schema {schema}, and this version reads {SCHEMA}")
        if missing := sorted(REQUIRED - set(document)):
            raise ManifestError(f"lacks {', '.join(missing)}")
        known = {name: document[name] for name in NAMES if name in document}
        return cls(**known | {"requires": tuple(document["requires"])})

    def created_at(self) -> datetime:
        return parse_time(self.created)


NAMES = tuple(entry.name for entry in fields(Manifest))
REQUIRED = frozenset(NAMES) - {"token_fingerprint", "etag", "max_age_seconds"}


def format_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def fingerprint(token: str) -> str:
    """The first digits of the SHA-256 of RKE2's server token, of both its forms."""
    return token_digest(token)[:FINGERPRINT_DIGITS]


def manifest_key(key: str) -> str:
    return f"{PREFIX}{key}{SUFFIX}"


def object_key(key: str) -> str:
    """The key of the object that a manifest describes, by the manifest's own key."""
    return key.removeprefix(PREFIX).removesuffix(SUFFIX)


def disagreement(manifest: Manifest, entry: Entry | None) -> str:
    """How a manifest and its object differ; empty if they agree."""
    if entry is None:
        return "its object does not exist"
    if entry.size_bytes != manifest.size_bytes:
        return f"its object has {entry.size_bytes} bytes, and its manifest has {manifest.size_bytes}"
    if manifest.etag and entry.etag != manifest.etag:
        return "its object was replaced after it was verified"
    return ""


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    return max(manifests, key=Manifest.created_at, default=None)
