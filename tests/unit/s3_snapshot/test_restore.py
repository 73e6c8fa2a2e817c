"""Exports of Ceph's data and their restore, with a store in memory; programs are real where the machine has them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Answer, Entry, S3Error
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket, SnapshotError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import Manifest, manifest_key
from slipway_snapshot import ceph, restore
from slipway_snapshot.run import Run

STAMP = "20261130T013000Z"
OPTIONS: dict[str, Any] = {
    "fsid": "899f40b4-a686-4ead-b19f-4ab5cb0001db",
    "gateway": {"endpoint": "https://rgw.example.test", "region": "default", "ca_certificate": ""},
    "buckets": [{"name": "media", "access_key": "A", "secret_key": "S"}],
    "images": ["kubernetes/canary"],
}
EXPORT = f"ceph/bucket-media-{STAMP}.tar.zst.age"
IMAGE = f"ceph/image-kubernetes-canary-{STAMP}.rbd.zst.age"


class Memory:
    """A store in memory with the calls that a Bucket uses."""

    def __init__(self, **buckets: dict[str, bytes]) -> None:
        self.buckets = buckets

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Answer:
        assert method == "PUT"
        self.buckets.setdefault(path.strip("/"), {})
        return Answer(200, {}, b"")

    def list_objects(self, bucket: str, prefix: str) -> list[Entry]:
        if bucket not in self.buckets:
            raise S3Error("no such bucket", 404, "NoSuchBucket")
        return [
            Entry(key, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), "2026-11-30T01:30:00Z")
            for key, body in sorted(self.buckets[bucket].items())
            if key.startswith(prefix)
        ]

    def download(self, path: str) -> Iterator[bytes]:
        bucket, _, key = path.strip("/").partition("/")
        body = self.buckets[bucket].get(key)
        if body is None:
            raise S3Error(f"GET {path}: 404 NoSuchKey", 404, "NoSuchKey")
        yield from (body[start : start + 700] for start in range(0, len(body), 700))

    def upload(self, path: str, blocks: Iterable[bytes]) -> None:
        bucket, _, key = path.strip("/").partition("/")
        self.buckets[bucket][key] = b"".join(blocks)


def bucket_of(store: Memory, name: str) -> Bucket:
    return Bucket(store, name, lambda: datetime(2026, 11, 30, tzinfo=UTC))  # type: ignore[arg-type]


def run_of(store: Memory) -> Run:
    return Run("ceph", "prod", "prod-ceph-1", "10.0.0.1", "age1x", OPTIONS, bucket_of(store, "prod-backup"))


def manifest(key: str, body: bytes, **more: Any) -> bytes:
    found = Manifest(
        "ceph", "prod", key, len(body), hashlib.sha256(body).hexdigest(), "2026-11-30T01:30:00Z", "h", "a", {}
    )
    return json.dumps(json.loads(found.to_json()) | more).encode()


def backup(exports: Mapping[str, bytes], **more: Any) -> dict[str, bytes]:
    """A bucket of backups: each export with its manifest."""
    return {**exports, **{manifest_key(key): manifest(key, body, **more) for key, body in exports.items()}}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports that are neither compressed nor encrypted."""
    monkeypatch.setattr(restore, "decryption", lambda identity_path: [["cat"]])


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pool as a folder, with the commands of rbd that a restore calls."""

    def path(name: str) -> Path:
        return tmp_path / name.replace("/", "_")

    def run_command(arguments: list[str], data: str | None = None) -> tuple[int, str, str]:
        words = [word for word in arguments[arguments.index("rbd") + 1 :] if not word.startswith("-")]
        if words[0] == "info":
            return (0, "", "") if path(words[1]).exists() else (2, "", "No such file or directory")
        if words[0] == "rm":
            path(words[1]).unlink(missing_ok=True)
        if words[0] == "rename":
            path(words[1]).rename(path(words[2]))
        return 0, "", ""

    real = restore.stream

    def stream(commands: list[list[str]], source: Iterable[bytes] | None = None) -> Iterator[bytes]:
        if "import" in commands[-1]:
            assert not path(commands[-1][-1]).exists(), "rbd import fails if the image exists"
            commands = [["tee", str(path(commands[-1][-1]))]]
        return real(commands, source)

    monkeypatch.setattr(restore, "run_command", run_command)
    monkeypatch.setattr(restore, "stream", stream)
    return tmp_path


OBJECTS = {"a/empty": b"", "a/text": b"text\n" * 1000, "ü " + "n" * 200: bytes(range(256)) * 9}


def archive(objects: dict[str, bytes]) -> bytes:
    return b"".join(ceph.bucket_archive(bucket_of(Memory(media=objects), "media")))


@pytest.mark.parametrize("objects", [{}, OBJECTS], ids=["empty", "objects of all sizes, long names"])
def test_a_bucket_is_the_same_after_export_and_restore(objects: dict[str, bytes]) -> None:
    store = Memory()
    assert restore.restore_bucket(bucket_of(store, "media"), [archive(objects)]) == (len(objects), 0)
    assert store.buckets["media"] == objects


def test_objects_that_exist_are_kept() -> None:
    store = Memory(media={"a/text": b"newer", "other": b"1"})
    assert restore.restore_bucket(bucket_of(store, "media"), [archive(OBJECTS)]) == (2, 1)
    assert store.buckets["media"] == OBJECTS | {"a/text": b"newer", "other": b"1"}


@pytest.mark.usefixtures("plain")
def test_all_exports_are_restored_and_the_next_run_keeps_them(images: Path) -> None:
    exports = {EXPORT: archive(OBJECTS), IMAGE: b"rbd image v2" * 1000}
    (images / "kubernetes_canary.restoring").write_bytes(b"of a run that was killed")
    store = Memory(**{"prod-backup": backup(exports), "media": {}})
    given = {"objects": list(exports), "identity": "AGE-SECRET-KEY-1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore.Bucket, "from_options", lambda options, keys: bucket_of(store, options["name"]))
        first, second = (json.loads(restore.execute(run_of(store), given)) for _ in range(2))
    assert first["faults"] == second["faults"] == []
    assert [(entry["object"], entry["restored"], entry["kept"]) for entry in first["restored"]] == [
        (EXPORT, 3, 0),
        (IMAGE, 1, 0),
    ]
    assert [(entry["restored"], entry["kept"]) for entry in second["restored"]] == [(0, 3), (0, 1)]
    assert store.buckets["media"] == OBJECTS
    assert (images / "kubernetes_canary").read_bytes() == exports[IMAGE]
    assert [path.name for path in images.iterdir()] == ["kubernetes_canary"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, f"{IMAGE}: its SHA-256 is "),
        ({"size_bytes": 1}, f"{IMAGE}: its object has 12 bytes, and its manifest has 1"),
        ({"environment": "stage"}, f"{IMAGE}: of the environment stage, and this is prod"),
        ({"schema": 9}, f"{IMAGE}: its manifest has schema 9, and this version reads 1"),
    ],
    ids=["changed", "truncated", "another environment", "newer manifest"],
)
@pytest.mark.usefixtures("plain")
def test_an_export_that_is_not_the_described_one_is_rejected(
    images: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIONS, "buckets", [])
    store = Memory(**{"prod-backup": backup({IMAGE: b"rbd image v2"}, **change)})
    answer = json.loads(restore.execute(run_of(store), {"objects": [IMAGE], "identity": ""}))
    assert answer["restored"] == []
    assert len(answer["faults"]) == 1 and answer["faults"][0].startswith(message)
    assert not (images / "kubernetes_canary").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([EXPORT], "image-kubernetes-canary: declared, and the bucket holds no export of it"),
        ([EXPORT, IMAGE, "ceph/bucket-other-1.tar"], "ceph/bucket-other-1.tar: of no declared bucket or image"),
    ],
    ids=["declared without export", "export without declaration"],
)
def test_exports_and_declarations_have_to_agree(keys: list[str], message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        restore.select(restore.series_of(OPTIONS), keys)


def test_the_identity_is_a_file_in_memory() -> None:
    with restore.private_path("AGE-SECRET-KEY-1") as path:
        assert Path(path).read_text() == Path(path).read_text() == "AGE-SECRET-KEY-1"
    assert not Path(path).exists()


def test_blocks_are_read_as_a_file() -> None:
    file = io.BufferedReader(restore.Blocks([b"ab", b"cdef", b"g"]), 4)
    assert [file.read(3), file.read(10), file.read(1)] == [b"abc", b"defg", b""]
