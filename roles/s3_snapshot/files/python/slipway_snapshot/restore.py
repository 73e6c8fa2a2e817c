"""Restore the declared buckets and images of Ceph from their newest exports. Nothing that exists is replaced."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, Any

from ansible_collections.slipway.platform.plugins.module_utils.output import error_line
from ansible_collections.slipway.platform.plugins.module_utils.s3 import S3Error
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket, SnapshotError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    Manifest,
    ManifestError,
    disagreement,
    manifest_key,
)

from slipway_snapshot.ceph import PREFIX
from slipway_snapshot.pipeline import BLOCK_BYTES, Counted, decryption, run_command, stream
from slipway_snapshot.run import Run

MISSING_IMAGE = 2
"""Exit status of `rbd info` for an image that does not exist (ENOENT)."""


@dataclass(frozen=True)
class Restored:
    """What one export brought back."""

    object: str
    created: str
    size_bytes: int
    restored: int
    """Objects of the bucket, or images, that were created."""
    kept: int
    """Those that existed and were left as they are."""
    seconds: float


def series_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Series → the declared bucket, a dict, or image, a name."""
    buckets = {f"bucket-{declared['name']}": declared for declared in options["buckets"]}
    return buckets | {f"image-{image.replace('/', '-')}": image for image in options["images"]}


def select(declared: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
    """Series → the key of its export. A declared series without one, and a key of no series, are errors."""
    found: dict[str, str] = {}
    for name in declared:
        # By the time too: the series of a bucket `a` is not that of a bucket `a-b`.
        own = [key for key in keys if re.match(rf"{re.escape(PREFIX + name)}-\d{{8}}T\d{{6}}Z\.", key)]
        if not own:
            raise SnapshotError(f"{name}: declared, and the bucket holds no export of it. Remove its declaration")
        found[name] = max(own)
    if unknown := sorted(set(keys) - set(found.values())):
        raise SnapshotError(f"{', '.join(unknown)}: of no declared bucket or image. Declare it, or restore without it")
    return found


def read_manifest(run: Run, key: str) -> Manifest:
    """The manifest of an export that is whole and of this environment."""
    try:
        manifest = Manifest.from_json(b"".join(run.bucket.download(manifest_key(key))))
    except ManifestError as error:
        raise SnapshotError(f"{key}: its manifest {error}") from error
    if reason := disagreement(manifest, run.bucket.entry(key)):
        raise SnapshotError(f"{key}: {reason}")
    if manifest.environment != run.environment:
        raise SnapshotError(f"{key}: of the environment {manifest.environment}, and this is {run.environment}")
    return manifest


@contextmanager
def private_path(text: str) -> Iterator[str]:
    """The path of a file in memory that holds the text, for a program that reads a secret from a file."""
    descriptor = os.memfd_create("identity")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


class Blocks(io.RawIOBase):
    """Blocks as a file that is read once, from begin to end."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def blocks_of(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def restore_bucket(bucket: Bucket, archive: Iterable[bytes]) -> tuple[int, int]:
    """(created, kept) objects of the bucket, which is created if it does not exist."""
    try:
        bucket.store.request("PUT", f"/{bucket.name}")
    except S3Error as error:
        if error.code != "BucketAlreadyOwnedByYou":
            raise bucket.failure("creating the bucket", error) from error
    existing = {entry.key for entry in bucket.list_objects("")}
    restored = kept = 0
    file = io.BufferedReader(Blocks(archive), BLOCK_BYTES)
    with tarfile.open(fileobj=file, mode="r|") as opened:
        for member in opened:
            if member.name in existing:
                kept += 1
            elif (content := opened.extractfile(member)) is not None:
                bucket.upload(member.name, blocks_of(content))
                restored += 1
    # What follows the end of the archive: the programs before it fail if nobody reads their output.
    while file.read(BLOCK_BYTES):
        pass
    return restored, kept


def restore_image(
    fsid: str, image: str, export: Iterable[bytes], require_unchanged: Callable[[], None]
) -> tuple[int, int]:
    """(created, kept) images: import it under another name, and rename it when it is whole."""
    rbd = ["cephadm", "shell", "--fsid", fsid, "--", "rbd"]
    code, _, errors = run_command([*rbd, "info", image])
    if code == 0:
        return 0, 1
    if code != MISSING_IMAGE:
        raise SnapshotError(f"rbd info {image} failed: {error_line(errors)}")
    partial = f"{image}.restoring"
    run_command([*rbd, "rm", "--no-progress", partial])  # of a run that was killed
    for _ in stream([[*rbd, "import", "--no-progress", "--export-format", "2", "-", partial]], export):
        pass
    require_unchanged()
    code, _, errors = run_command([*rbd, "rename", partial, image])
    if code != 0:
        raise SnapshotError(f"rbd rename {partial} {image} failed: {error_line(errors)}")
    return 1, 0


def restore_one(run: Run, identity_path: str, name: str, manifest: Manifest) -> Restored:
    began = time.monotonic()
    counted = Counted(run.bucket.download(manifest.object))
    content = stream(decryption(identity_path), counted)

    def require_unchanged() -> None:
        if counted.sha256 != manifest.sha256:
            raise SnapshotError(
                f"{manifest.object}: its SHA-256 is {counted.sha256}, and its manifest has {manifest.sha256}"
            )

    series = series_of(run.options)
    if isinstance(declared := series[name], str):
        restored, kept = restore_image(run.options["fsid"], declared, content, require_unchanged)
    else:
        target = Bucket.from_options({**run.options["gateway"], "name": declared["name"]}, declared)
        restored, kept = restore_bucket(target, content)
        require_unchanged()
    return Restored(
        manifest.object, manifest.created, manifest.size_bytes, restored, kept, round(time.monotonic() - began, 1)
    )


def execute(run: Run, given: Mapping[str, Any]) -> str:
    """Restore the given objects: all manifests are read before the first is restored.

    Returns JSON with what was restored and the faults, since a failed object does not stop the others.
    """
    made: list[Restored] = []
    faults: list[str] = []
    try:
        keys = select(series_of(run.options), given["objects"])
        chosen = {name: read_manifest(run, key) for name, key in keys.items()}
    except SnapshotError as error:
        return json.dumps({"restored": [], "faults": [str(error)]})
    with private_path(given["identity"]) as identity_path:
        for name, manifest in chosen.items():
            try:
                made.append(restore_one(run, identity_path, name, manifest))
            except SnapshotError as error:
                faults.append(str(error))
    return json.dumps({"restored": [asdict(entry) for entry in made], "faults": faults})
