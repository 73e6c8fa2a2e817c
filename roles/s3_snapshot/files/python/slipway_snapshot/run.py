"""One run of one part: its options, its bucket, and what it found."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    Manifest,
    format_time,
    manifest_key,
    newest,
)

from slipway_snapshot.pipeline import Counted


@dataclass
class Run:
    part: str
    environment: str
    host: str
    address: str
    recipient: str
    """Public key of the escrow, which snapshots are encrypted for."""
    options: Mapping[str, Any]
    bucket: Bucket
    saves_now: bool = False
    """Whether the run takes a snapshot too where a service takes them by a schedule of its own."""
    max_age_seconds: int = 0
    """The age that the newest snapshot may have, by the schedule."""
    newest: Manifest | None = field(default=None)
    """The newest good snapshot of this host."""
    examined: bool = False
    """Whether `newest` is known; it is not if the bucket could not be read."""

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any], part: str) -> Run:
        options = configuration["parts"][part]
        return cls(
            part=part,
            environment=configuration["environment"],
            host=configuration["host"],
            address=configuration["address"],
            recipient=configuration["recipient"],
            options=options,
            bucket=Bucket.from_options(configuration["bucket"], options),
        )

    @staticmethod
    def now() -> float:
        return time.time()

    def manifest(self, key: str, size_bytes: int, sha256: str, **more: Any) -> Manifest:
        return Manifest(
            part=self.part,
            environment=self.environment,
            object=key,
            size_bytes=size_bytes,
            sha256=sha256,
            host=self.host,
            address=self.address,
            max_age_seconds=self.max_age_seconds,
            **{"created": format_time(self.now()), "software": {}, **more},
        )

    def store(self, key: str, blocks: Iterable[bytes], **more: Any) -> Manifest:
        """Upload an object, verify its size in the bucket, and write its manifest."""
        began, counted = self.now(), Counted(blocks)
        self.bucket.upload(key, counted)
        entry = self.bucket.require_stored(key, counted.size_bytes)
        manifest = self.manifest(
            key, counted.size_bytes, counted.sha256, **{"created": format_time(began), "etag": entry.etag, **more}
        )
        self.bucket.write_manifest(manifest)
        return manifest

    def prune_manifests(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.bucket.delete(manifest_key(key))

    def prune_objects(self, keys: Iterable[str]) -> None:
        """Delete objects with their manifests, which come first: an object without one is deleted by the next run."""
        for key in keys:
            self.bucket.delete(manifest_key(key))
            self.bucket.delete(key)

    def record_newest(self, manifests: Iterable[Manifest]) -> None:
        self.newest, self.examined = newest(manifests), True
