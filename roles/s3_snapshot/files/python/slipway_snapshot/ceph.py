"""The Ceph cluster: monitor store with keys and options, and declared buckets and images that nothing else holds."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_backup import BackupError
from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_snapshot import MonitorSnapshot
from ansible_collections.slipway.platform.plugins.module_utils.output import error_line
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket, SnapshotError, faults_of
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import Manifest

from slipway_snapshot.pipeline import BLOCK_BYTES, encryption, run_command, stream
from slipway_snapshot.run import Run
from slipway_snapshot.series import expired, key_of

PREFIX = "ceph/"
LOCAL_COPIES = 2
TIMEOUT_SECONDS = 120


def read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def save_monitor(run: Run) -> Manifest:
    snapshot = MonitorSnapshot(
        run_command,
        fsid=run.options["fsid"],
        monitor=run.host,
        folder=run.options["dir"],
        name="scheduled",
        keep=LOCAL_COPIES,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    try:
        made = snapshot.create()
    except (BackupError, CephError) as error:
        raise SnapshotError(f"the monitor store of {run.host}: {error}") from error
    return store(
        run, "monitor", ".tar.gz.zst.age", read_file(Path(made["path"])), {"ceph": ", ".join(made["versions"])}
    )


def bucket_archive(bucket: Bucket) -> Iterator[bytes]:
    """A tar archive of all objects of a bucket, made while they are downloaded."""
    for entry in bucket.list_objects(""):
        header = tarfile.TarInfo(entry.key)
        header.size = entry.size_bytes
        header.mtime = int(datetime.fromisoformat(entry.modified).timestamp())
        yield header.tobuf(tarfile.PAX_FORMAT)
        size = 0
        for block in bucket.download(entry.key):
            size += len(block)
            yield block
        if size != entry.size_bytes:
            raise SnapshotError(f"{bucket.name}/{entry.key} changed while it was read")
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def save_bucket(run: Run, declared: Mapping[str, Any]) -> Manifest:
    gateway = run.options["gateway"]
    bucket = Bucket.from_options({**gateway, "name": declared["name"]}, declared)
    return store(run, f"bucket-{declared['name']}", ".tar.zst.age", bucket_archive(bucket), {})


def save_image(run: Run, image: str) -> Manifest:
    """Export a snapshot of the image, in the format of `rbd import --export-format 2`."""
    rbd = ["cephadm", "shell", "--fsid", run.options["fsid"], "--", "rbd"]
    point = f"{image}@slipway-snapshot"
    # One of a run that was killed would be exported in place of the present content.
    run_command([*rbd, "snap", "rm", "--no-progress", point])
    code, _, errors = run_command([*rbd, "snap", "create", "--no-progress", point])
    if code != 0:
        raise SnapshotError(f"rbd snap create {point} failed: {error_line(errors)}")
    try:
        export = stream([[*rbd, "export", "--no-progress", "--export-format", "2", point, "-"]])
        return store(run, f"image-{image.replace('/', '-')}", ".rbd.zst.age", export, {})
    finally:
        run_command([*rbd, "snap", "rm", "--no-progress", point])


def store(run: Run, name: str, suffix: str, blocks: Iterator[bytes], software: Mapping[str, str]) -> Manifest:
    """Upload an encrypted object and expire the oldest of its series."""
    key = key_of(PREFIX, name, suffix, run.now())
    encrypted = stream(encryption(run.recipient), blocks)
    manifest = run.store(key, encrypted, software=software, requires=("escrow identity",))
    keys = [entry.key for entry in run.bucket.list_objects(f"{PREFIX}{name}-")]
    run.prune_objects(expired(keys, PREFIX, name, run.options["keep"]))
    return manifest


def execute(run: Run) -> None:
    """Save all, and report every failure at the end."""
    made: list[Manifest] = []
    faults: list[str] = []
    saves: list[Callable[[], Manifest]] = [
        partial(save_monitor, run),
        *(partial(save_bucket, run, declared) for declared in run.options["buckets"]),
        *(partial(save_image, run, image) for image in run.options["images"]),
    ]
    for save in saves:
        try:
            made.append(save())
        except SnapshotError as error:
            faults.append(str(error))
    manifests, unreadable = run.bucket.manifests(PREFIX)
    faults += faults_of(manifests, {entry.key: entry for entry in run.bucket.list_objects(PREFIX)})
    faults += [f"{key}: {fault}" for key, fault in unreadable.items()]
    run.record_newest(made)
    if faults:
        raise SnapshotError("; ".join(faults))
