"""The bucket as a writer uses it: causes of failures, uploads in parts, pipelines of programs."""

from __future__ import annotations

import hashlib
import io
import ssl
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import s3
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Answer, Entry, Key, S3Error, Store
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import (
    Bucket,
    SnapshotError,
    clock_offset_seconds,
    explain,
)
from slipway_snapshot import pipeline
from slipway_snapshot.ceph import bucket_archive
from slipway_snapshot.pipeline import Counted, stream

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
DATE = format_datetime(NOW, usegmt=True)
LATE = format_datetime(datetime(2027, 1, 15, 8, 20, tzinfo=UTC), usegmt=True)


def caused(error: S3Error, cause: BaseException) -> S3Error:
    error.__cause__ = cause
    return error


def unverified() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (S3Error("x", 403, "RequestTimeTooSkewed", LATE), "the clock of this host differs from the store's by -1200 s"),
        (S3Error("x", 403, "AccessDenied", LATE), "the clock of this host differs from the store's by -1200 s"),
        (caused(S3Error("x"), unverified()), "cannot be verified (unable to get local issuer certificate)"),
        (caused(S3Error("x"), ConnectionRefusedError("refused")), "the store cannot be reached (refused)"),
        (S3Error("x", 403, "InvalidAccessKeyId", DATE), "does not know the access key"),
        (S3Error("x", 403, "SignatureDoesNotMatch", DATE), "the secret key of this writer is wrong"),
        (S3Error("x", 404, "NoSuchBucket", DATE), "the bucket backup does not exist"),
        (S3Error("PUT /x: 403 AccessDenied", 403, "AccessDenied", DATE), "lacks a permission (PUT /x: 403"),
        (S3Error("PUT /x: 500 InternalError", 500, "InternalError", DATE), "rejected a request (PUT /x: 500"),
    ],
)
def test_each_cause_has_a_sentence_of_its_own(error: S3Error, sentence: str) -> None:
    assert sentence in explain(error, "backup", NOW)


def test_the_clock_is_compared_with_the_date_of_the_answer() -> None:
    assert clock_offset_seconds(LATE, NOW) == -1200
    assert clock_offset_seconds("", NOW) == 0


class Memory(Store):
    """A store in memory: objects and the requests it got."""

    def __init__(self, *, versions: bool = True, denies_deletion: bool = True) -> None:
        super().__init__("https://s3.example.com", Key("a", "b"), region="default")
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.versions, self.denies_deletion = versions, denies_deletion

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        parameters = dict(query or {})
        self.requests.append((method, ",".join(sorted(parameters))))
        answer: dict[str, str] = {"etag": f'"{hashlib.md5(body).hexdigest()}"', "date": DATE}
        if method == "POST":
            text = "<R><UploadId>u</UploadId></R>" if "uploads" in parameters else "<Done/>"
            return Answer(200, answer, text.encode())
        if method == "DELETE" and "versionId" in parameters and self.denies_deletion:
            raise S3Error("DELETE: 403 AccessDenied", 403, "AccessDenied", DATE)
        if method == "DELETE" and "versionId" not in parameters and "uploadId" not in parameters:
            del self.objects[path]
        if method == "PUT":
            self.objects[path] = self.objects.get(path, b"") + body if "partNumber" in parameters else body
        if self.versions:
            answer["x-amz-version-id"] = "v1"
        return Answer(200, answer, b"")

    def download(self, path: str) -> Iterator[bytes]:
        yield self.objects[path]

    def list_objects(self, bucket: str, prefix: str) -> list[Entry]:
        keys = {path.removeprefix(f"/{bucket}/"): body for path, body in self.objects.items()}
        return [
            Entry(key, len(body), hashlib.md5(body).hexdigest(), "2027-01-15T06:00:00.000Z")
            for key, body in sorted(keys.items())
            if key.startswith(prefix)
        ]


def bucket(**options: Any) -> Bucket:
    return Bucket(Memory(**options), "backup", lambda: NOW)


def test_a_large_object_is_uploaded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 4)
    store = Memory()
    store.upload("/backup/large", [b"abc", b"defgh", b"i"])
    assert store.objects["/backup/large"] == b"abcdefghi"
    assert [request for request in store.requests if request[0] == "PUT"] == [("PUT", "partNumber,uploadId")] * 3
    store.upload("/backup/small", [b"ab"])
    assert store.requests[-1] == ("PUT", "")


def test_an_upload_that_fails_midway_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 4)
    store = Memory()

    def blocks() -> Iterator[bytes]:
        yield b"abcdefgh"
        raise SnapshotError("tar failed")

    with pytest.raises(SnapshotError, match="tar failed"):
        store.upload("/backup/large", blocks())
    assert store.requests[-1] == ("DELETE", "uploadId")


def test_a_bucket_is_verified_and_the_object_hidden_again() -> None:
    found = bucket()
    found.verify("config/probe")
    assert found.list_objects("") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"versions": False}, "it keeps no versions"), ({"denies_deletion": False}, "can delete versions")],
)
def test_a_bucket_that_does_not_protect_its_versions_is_rejected(options: dict[str, bool], sentence: str) -> None:
    with pytest.raises(SnapshotError, match=sentence):
        bucket(**options).verify("config/probe")


def test_a_clock_that_differs_is_rejected_before_the_store_rejects_it() -> None:
    late = Bucket(Memory(), "backup", lambda: datetime(2027, 1, 15, 8, 10, tzinfo=UTC))
    with pytest.raises(SnapshotError, match="differs from the store's by 600 s"):
        late.verify("config/probe")


def test_an_object_of_another_size_is_rejected() -> None:
    found = bucket()
    found.upload("config/a", [b"abc"])
    with pytest.raises(SnapshotError, match="was uploaded with 4 bytes, and the bucket has 3 bytes"):
        found.require_stored("config/a", 4)
    with pytest.raises(SnapshotError, match="no object"):
        found.require_stored("config/b", 4)


def test_manifests_that_cannot_be_read_are_faults_and_probes_are_not_manifests() -> None:
    found = bucket()
    found.upload("manifests/config/a.json", [b"{"])
    found.upload("manifests/config/.slipway-probe-host", [b"x"])
    manifests, faults = found.manifests("config/")
    assert manifests == {}
    assert list(faults) == ["config/a"] and "is no JSON" in faults["config/a"]


# pipelines


def test_programs_are_joined_and_the_output_is_counted() -> None:
    counted = Counted(stream([["cat"], ["tr", "a-z", "A-Z"]], [b"abc", b"def"]))
    assert b"".join(counted) == b"ABCDEF"
    assert (counted.size_bytes, counted.sha256) == (6, hashlib.sha256(b"ABCDEF").hexdigest())


BROKEN = ["sh", "-c", "echo out; echo broken >&2; exit 3"]


@pytest.mark.parametrize("commands", [[BROKEN], [BROKEN, ["cat"]], [["yes"], BROKEN]])
def test_a_failed_program_fails_the_stream(commands: list[list[str]]) -> None:
    with pytest.raises(SnapshotError, match=r"sh failed \(3\): broken"):
        list(stream(commands))


def test_a_failed_source_fails_the_stream() -> None:
    def source() -> Iterator[bytes]:
        yield b"abc"
        raise SnapshotError("the gateway is down")

    with pytest.raises(SnapshotError, match="the gateway is down"):
        list(stream([["cat"]], source()))


def test_an_abandoned_stream_ends_its_programs() -> None:
    began = time.monotonic()
    blocks = stream([["sh", "-c", "echo a; exec sleep 60"]])
    assert next(blocks) == b"a\n"
    blocks.close()
    assert time.monotonic() - began < 30


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STALL_SECONDS", 1)
    monkeypatch.setattr(pipeline, "POLL_SECONDS", 0.1)


@pytest.mark.usefixtures("short_stall")
def test_a_stream_that_stalls_fails() -> None:
    with pytest.raises(SnapshotError, match="sleep, cat: neither read nor wrote anything for 1 s"):
        list(stream([["sleep", "60"], ["cat"]]))


@pytest.mark.usefixtures("short_stall")
def test_a_program_that_is_fed_may_have_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the load: its input counts as written long after now."""
    clock = time.monotonic
    written_at = threading.local()
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: clock() + getattr(written_at, "ahead", 0))

    def source() -> Iterator[bytes]:
        written_at.ahead = 3600  # in the thread of the feed alone
        yield b"a"

    assert list(stream([["sh", "-c", "cat >/dev/null; sleep 2"]], source())) == []


def test_a_bucket_of_ceph_becomes_a_tar_archive() -> None:
    found = bucket()
    contents = {"a": b"", "folder/b": b"x" * 1000}
    for key, body in contents.items():
        found.upload(key, [body])
    with tarfile.open(fileobj=io.BytesIO(b"".join(bucket_archive(found)))) as archive:
        read = {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}
    assert read == contents
