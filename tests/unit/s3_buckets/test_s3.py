"""The S3 client: its signature compared with botocore's, its errors and its secrets."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import (
    Answer,
    Entry,
    Key,
    S3Error,
    Store,
    authorization,
    error_from,
)
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY = Key("AKIA", "secret")


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", "/", {}, b""),
        ("PUT", "/backup", {"versioning": ""}, b"<x/>"),
        ("GET", "/backup/a%20b/c~d", {"list-type": "2", "prefix": "a b/ü"}, b""),
    ],
)
def test_the_signature_is_botocores(method: str, path: str, query: dict[str, str], body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    request = AWSRequest(method=method, url=f"https://s3.example.com{path}", params=query, data=body)
    request.headers["X-Amz-Content-SHA256"] = digest
    S3SigV4Auth(Credentials(KEY.access_key, KEY.secret_key), "s3", "eu").add_auth(request)
    headers = {
        "host": "s3.example.com",
        "x-amz-date": request.headers["X-Amz-Date"],
        "x-amz-content-sha256": digest,
    }
    assert authorization(KEY, method, path, query, headers, digest, region="eu") == request.headers["Authorization"]


def test_an_error_has_the_code_of_the_store() -> None:
    body = (
        b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>AccessDenied</Code><Message>no</Message></Error>'
    )
    error = error_from("GET /x", Answer(403, {}, body))
    assert (str(error), error.status, error.code) == ("GET /x: 403 AccessDenied no", 403, "AccessDenied")
    assert str(error_from("HEAD /x", Answer(404, {}, b""))) == "HEAD /x: 404"


@pytest.mark.parametrize("endpoint", ["http://s3.example.com", "s3.example.com", "https://s3.example.com/bucket"])
def test_the_endpoint_must_be_an_https_url(endpoint: str) -> None:
    with pytest.raises(S3Error, match="not an S3 endpoint"):
        Store(endpoint, KEY, region="default")


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(Key("AKIA", "secret-value"))


def test_an_unreachable_store_is_status_zero() -> None:
    store = Store("https://s3.example.com:1", KEY, region="default", addresses=["127.0.0.1"], timeout_seconds=1)
    with pytest.raises(S3Error, match="no answer") as caught:
        store.request("GET", "/")
    assert (caught.value.status, caught.value.code) == (0, "")


def test_a_listing_continues_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (
        "<ListBucketResult><Contents><Key>{key}</Key><Size>3</Size><ETag>&quot;tag&quot;</ETag>"
        "<LastModified>2027-01-15T06:00:00.000Z</LastModified></Contents>{rest}</ListBucketResult>"
    )
    rest = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
    pages = {"": page.format(key="a", rest=rest), "next": page.format(key="b", rest="<IsTruncated>false</IsTruncated>")}
    store = Store("https://s3.example.com", KEY, region="default")

    def request(method: str, path: str, query: dict[str, str]) -> Answer:
        assert (method, path, query["prefix"]) == ("GET", "/backup", "etcd/")
        return Answer(200, {}, pages[query.get("continuation-token", "")].encode())

    monkeypatch.setattr(store, "request", request)
    found = store.list_objects("backup", "etcd/")
    assert [entry.key for entry in found] == ["a", "b"]
    assert found[0] == Entry("a", 3, "tag", "2027-01-15T06:00:00.000Z")
