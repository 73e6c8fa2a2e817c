"""The environment's bucket, as the writer of one part may use it."""

from __future__ import annotations

import hashlib
import secrets
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry, Key, S3Error, Store
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    PREFIX,
    SUFFIX,
    Manifest,
    ManifestError,
    disagreement,
    manifest_key,
    object_key,
)

CLOCK_LIMIT_SECONDS = 300
"""Stores reject requests from 900 seconds on."""
PROBE_BYTES = 1024


class SnapshotError(Exception):
    """A failure, with a message for the operator."""


def explain(error: S3Error, bucket: str, now: datetime) -> str:
    """A sentence that names the cause: clock, authority, network, keys, bucket or permission."""
    cause = error.__cause__
    offset = clock_offset_seconds(error.date, now)
    if error.code == "RequestTimeTooSkewed" or (error.status == 403 and abs(offset) > CLOCK_LIMIT_SECONDS):
        return f"the clock of this host differs from the store's by {offset} s. Correct it (chronyc tracking)"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the store cannot be verified ({cause.verify_message}). Correct "
            "platform_object_storage_ca_certificate or platform_object_storage_endpoint"
        )
    if error.status == 0:
        return (
            f"the store cannot be reached ({cause or error}). Correct platform_object_storage_endpoint or the network"
        )
    if error.code == "InvalidAccessKeyId":
        return "the store does not know the access key of this writer. Correct its entry in vault.yml"
    if error.code == "SignatureDoesNotMatch":
        return "the secret key of this writer is wrong. Correct its entry in vault.yml"
    if error.code == "NoSuchBucket":
        return (
            f"the bucket {bucket} does not exist. Correct platform_object_storage_bucket, or run "
            "playbooks/object_storage.yml"
        )
    if error.status == 403:
        return f"this writer lacks a permission ({error}). Run playbooks/object_storage.yml, which grants it"
    return f"the store rejected a request ({error})"


def clock_offset_seconds(date: str, now: datetime) -> int:
    """Seconds that the local clock is ahead of the store's; 0 without a date."""
    if not date:
        return 0
    return round((now - parsedate_to_datetime(date).astimezone(UTC)).total_seconds())


@dataclass(frozen=True)
class Bucket:
    """The bucket with the key of one writer. Every failure of the store is a SnapshotError with its cause."""

    store: Store
    name: str
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def from_options(cls, bucket: Mapping[str, Any], keys: Mapping[str, Any]) -> Bucket:
        store = Store(
            bucket["endpoint"],
            Key(keys["access_key"], keys["secret_key"]),
            region=bucket["region"],
            ca_certificate=bucket["ca_certificate"],
            addresses=bucket.get("addresses") or (),
            timeout_seconds=60,
        )
        return cls(store, bucket["name"])

    def path(self, key: str) -> str:
        return f"/{self.name}/{key}"

    def failure(self, action: str, error: S3Error) -> SnapshotError:
        return SnapshotError(f"bucket {self.name}: {action} failed: {explain(error, self.name, self.clock())}")

    def list_objects(self, prefix: str) -> list[Entry]:
        try:
            return self.store.list_objects(self.name, prefix)
        except S3Error as error:
            raise self.failure(f"listing {prefix}", error) from error

    def entry(self, key: str) -> Entry | None:
        return next((entry for entry in self.list_objects(key) if entry.key == key), None)

    def download(self, key: str) -> Iterator[bytes]:
        try:
            yield from self.store.download(self.path(key))
        except S3Error as error:
            raise self.failure(f"downloading {key}", error) from error

    def upload(self, key: str, blocks: Iterable[bytes]) -> None:
        try:
            self.store.upload(self.path(key), blocks)
        except S3Error as error:
            raise self.failure(f"uploading {key}", error) from error

    def delete(self, key: str) -> None:
        """Hide the object; its versions remain until they expire."""
        try:
            self.store.request("DELETE", self.path(key))
        except S3Error as error:
            raise self.failure(f"deleting {key}", error) from error

    def digest(self, key: str) -> str:
        found = hashlib.sha256()
        for block in self.download(key):
            found.update(block)
        return found.hexdigest()

    def manifests(self, prefix: str) -> tuple[dict[str, Manifest], dict[str, str]]:
        """(manifest, fault) of each object below the prefix that has a manifest; either is by the object's key."""
        found: dict[str, Manifest] = {}
        faults: dict[str, str] = {}
        for entry in self.list_objects(f"{PREFIX}{prefix}"):
            if not entry.key.endswith(SUFFIX):
                continue  # a proof
            try:
                found[object_key(entry.key)] = Manifest.from_json(b"".join(self.download(entry.key)))
            except ManifestError as error:
                faults[object_key(entry.key)] = f"its manifest {error}"
        return found, faults

    def write_manifest(self, manifest: Manifest) -> None:
        self.upload(manifest_key(manifest.object), [manifest.to_json().encode()])

    def require_stored(self, key: str, size_bytes: int) -> Entry:
        """The entry of an object that was just uploaded."""
        entry = self.entry(key)
        if entry is None or entry.size_bytes != size_bytes:
            size = "no object" if entry is None else f"{entry.size_bytes} bytes"
            raise SnapshotError(
                f"bucket {self.name}: {key} was uploaded with {size_bytes} bytes, and the bucket has {size}"
            )
        return entry

    def verify(self, key: str) -> None:
        """Upload, list, download and compare an object, and require that its version cannot be deleted."""
        content = secrets.token_bytes(PROBE_BYTES)
        try:
            answer = self.store.request("PUT", self.path(key), body=content)
        except S3Error as error:
            raise self.failure(f"uploading {key}", error) from error
        offset = clock_offset_seconds(answer.headers.get("date", ""), self.clock())
        if abs(offset) > CLOCK_LIMIT_SECONDS:
            raise SnapshotError(
                f"the clock of this host differs from the store's by {offset} s. Correct it (chronyc tracking)"
            )
        self.require_stored(key, len(content))
        if b"".join(self.download(key)) != content:
            raise SnapshotError(
                f"bucket {self.name}: {key} was downloaded with another content than it was uploaded with"
            )
        version = answer.headers.get("x-amz-version-id", "")
        if not version:
            raise SnapshotError(f"bucket {self.name}: it keeps no versions. Run playbooks/object_storage.yml")
        try:
            self.store.request("DELETE", self.path(key), {"versionId": version})
        except S3Error as error:
            if error.status != 403:
                raise self.failure(f"deleting a version of {key}", error) from error
        else:
            raise SnapshotError(
                f"bucket {self.name}: this writer can delete versions of its objects. Run "
                "playbooks/object_storage.yml, which denies it"
            )
        self.delete(key)


def faults_of(manifests: Mapping[str, Manifest], entries: Mapping[str, Entry]) -> list[str]:
    """The manifests that disagree with their objects."""
    return [
        f"{key}: {reason}"
        for key, manifest in sorted(manifests.items())
        if (reason := disagreement(manifest, entries.get(key)))
    ]
