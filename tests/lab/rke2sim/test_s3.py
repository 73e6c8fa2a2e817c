"""The S3 client with a test double of S3 on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.s3 import Bucket, S3Error

PAGE = 2


class Handler(BaseHTTPRequestHandler):
    objects: dict[str, bytes]

    def _send(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket").removeprefix("/")

    def do_PUT(self) -> None:
        if "Credential=AK/" not in self.headers["authorization"]:
            self._send(403, b"<Error><Code>InvalidAccessKeyId</Code><Message>who?</Message></Error>")
            return
        self.objects[self._key()] = self.rfile.read(int(self.headers["content-length"]))
        self._send(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self._key(), None)
        self._send(204)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" not in query:
            found = self.objects.get(self._key())
            self._send(200 if found is not None else 404, found or b"<Error><Code>NoSuchKey</Code></Error>")
            return
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        names = [name for name in sorted(self.objects) if name.startswith(prefix) and name > after]
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(self.objects[name])}</Size>"
            "<LastModified>2026-11-21T05:06:07.000Z</LastModified></Contents>"
            for name in names[:PAGE]
        )
        more = f"<NextContinuationToken>{names[PAGE - 1]}</NextContinuationToken>" if len(names) > PAGE else ""
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        self._send(200, f'<ListBucketResult xmlns="{space}">{entries}{more}</ListBucketResult>'.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def endpoint() -> Iterator[str]:
    handler = type("Fresh", (Handler,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def bucket(endpoint: str, **changes: object) -> Bucket:
    values = {
        "etcd-s3-endpoint": endpoint,
        "etcd-s3-bucket": "bucket",
        "etcd-s3-folder": "dev cluster",
        "etcd-s3-access-key": "AK",
        "etcd-s3-secret-key": "SK",
        "etcd-s3-insecure": True,
        **changes,
    }
    return Bucket(Config("server", values))


def test_put_list_get_delete(endpoint: str) -> None:
    store = bucket(endpoint)
    for number in range(5):
        store.put(f"snap-{number}", b"x" * number, {"node": "n1"})
    bucket(endpoint, **{"etcd-s3-folder": "other"}).put("foreign", b"", {})
    assert [(item.name, item.size) for item in store.list()] == [(f"snap-{n}", n) for n in range(5)]
    assert store.get("snap-3") == b"xxx"
    store.delete("snap-3")
    assert "snap-3" not in [item.name for item in store.list()]
    assert store.location("snap-4") == "s3://bucket/dev cluster/snap-4"


def test_errors_contain_the_reason(endpoint: str) -> None:
    with pytest.raises(S3Error, match=r"InvalidAccessKeyId: who\?"):
        bucket(endpoint, **{"etcd-s3-access-key": "XX"}).put("a", b"", {})
    with pytest.raises(S3Error, match="NoSuchKey"):
        bucket(endpoint).get("missing")
    with pytest.raises(S3Error, match="bucket name was not set"):
        bucket(endpoint, **{"etcd-s3-bucket": ""})
    with pytest.raises(S3Error, match="Connection refused"):
        bucket("127.0.0.1:1").list()


def test_an_unreadable_ca_is_an_error(endpoint: str) -> None:
    with pytest.raises(S3Error, match="etcd-s3-endpoint-ca is neither"):
        bucket(endpoint, **{"etcd-s3-endpoint-ca": "no file, no base64"})
