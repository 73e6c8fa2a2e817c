"""Writes container images into the storage of a registry, without a container engine and without a push.

The layout is that of CNCF Distribution's file system driver, unchanged since version 2:

    docker/registry/v2/blobs/sha256/<2>/<digest>/data                       layers, configurations, manifests
    docker/registry/v2/repositories/<name>/_layers/sha256/<digest>/link     layers and configurations of a repository
    docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/…    its manifests by digest, and by tag
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    """`sha256:<hex>`"""
    size: int

    def described(self, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed layer: it takes more space in the cache, and hosts need no time to decompress it."""

    blob: Blob
    created_by: str
    """`created_by` in the image's history."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The storage folder of a registry."""

    root: Path

    @property
    def _base(self) -> Path:
        return self.root / "docker/registry/v2"

    def path(self, digest: str) -> Path:
        algorithm, _, number = digest.partition(":")
        return self._base / "blobs" / algorithm / number[:2] / number / "data"

    def add(self, content: bytes) -> Blob:
        blob = Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
        target = self.path(blob.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name("data.new")
        fresh.write_bytes(content)
        fresh.replace(target)
        return blob

    def move_in(self, file: Path) -> Blob:
        """Add a file by moving it; it is on the same file system."""
        with file.open("rb") as opened:
            digest = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
        blob = Blob(digest, file.stat().st_size)
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        return blob

    def publish(
        self, repository: str, tag: str, layers: Iterable[Layer], settings: Mapping[str, Any], created: str
    ) -> str:
        """Write an image of stored layers and return its digest; a tag is moved, earlier digests are kept."""
        stack = tuple(layers)
        config = self.add(
            json.dumps({
                "created": created,
                "architecture": "amd64",
                "os": "linux",
                "config": settings,
                # Without compression the diff_id equals the digest of the blob.
                "rootfs": {"type": "layers", "diff_ids": [layer.blob.digest for layer in stack]},
                "history": [{"created": created, "created_by": layer.created_by} for layer in stack],
            }).encode()
        )  # fmt: skip
        manifest = self.add(
            json.dumps({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.described(CONFIG),
                "layers": [layer.blob.described(LAYER) for layer in stack],
            }).encode()
        )  # fmt: skip
        repository_dir = self._base / "repositories" / repository
        for blob in (config, *(layer.blob for layer in stack)):
            _link(repository_dir / "_layers" / _path(blob.digest), blob.digest)
        _link(repository_dir / "_manifests/revisions" / _path(manifest.digest), manifest.digest)
        _link(repository_dir / "_manifests/tags" / tag / "index" / _path(manifest.digest), manifest.digest)
        _link(repository_dir / "_manifests/tags" / tag / "current", manifest.digest)
        return manifest.digest

    def has_image(self, repository: str, digest: str) -> bool:
        """Whether the manifest and all blobs of an image are present."""
        revision = self._base / "repositories" / repository / "_manifests/revisions" / _path(digest) / "link"
        if not (revision.exists() and self.path(digest).exists()):
            return False
        return all(
            self.path(blob["digest"]).exists() and self.path(blob["digest"]).stat().st_size == blob["size"]
            for blob in self._blobs(digest)
        )

    def prune(self, repository: str, keep: Collection[str]) -> None:
        """Remove the repository's images except `keep`, and the blobs that no image of any repository uses."""
        manifests = self._base / "repositories" / repository / "_manifests"
        for revision in manifests.glob("revisions/sha256/*"):
            if f"sha256:{revision.name}" not in keep:
                shutil.rmtree(revision)
        for tag in manifests.glob("tags/*"):
            if (tag / "current/link").read_text() not in keep:
                shutil.rmtree(tag)
        revisions = self._base.glob("repositories/**/_manifests/revisions/sha256/*")
        digests = [f"sha256:{revision.name}" for revision in revisions]
        used = {*digests, *(blob["digest"] for digest in digests for blob in self._blobs(digest))}
        for blob in self._base.glob("blobs/sha256/*/*"):
            if f"sha256:{blob.name}" not in used:
                shutil.rmtree(blob)

    def _blobs(self, digest: str) -> list[dict[str, Any]]:
        manifest = json.loads(self.path(digest).read_bytes())
        return [manifest["config"], *manifest["layers"]]


def layer(files: Mapping[str, str]) -> bytes:
    """A layer of a few text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, text in sorted(files.items()):
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uname, member.gname = len(content), 0o644, "root", "root"
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _path(digest: str) -> str:
    return digest.replace(":", "/")


def _link(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(digest)
