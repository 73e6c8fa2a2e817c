"""A small S3 client for snapshots: put, get, list, delete and head, with AWS Signature Version 4."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ssl
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from .config import Config
from .controllers import parse_duration
from .log import Fatal

DEFAULT_RETENTION = 5


class S3Error(Exception):
    """The store returned an error or is unreachable."""


@dataclass(frozen=True, slots=True)
class Stored:
    name: str
    size: int
    modified: datetime


def canonical_query(query: dict[str, str]) -> str:
    return "&".join(f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in sorted(query.items()))


def sign(
    method: str,
    path: str,
    query: dict[str, str],
    headers: dict[str, str],
    payload_hash: str,
    *,
    region: str,
    access_key: str,
    secret_key: str,
) -> str:
    """The Authorization header for these (lower-case) headers, which include host and x-amz-date."""
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    request = "\n".join([method, path, canonical_query(query), lines, names, payload_hash])
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


class Bucket:
    """One bucket and folder, as the etcd-s3-* settings name it."""

    def __init__(self, config: Config) -> None:
        self.endpoint = config.text("etcd-s3-endpoint") or "s3.amazonaws.com"
        self.region = config.text("etcd-s3-region") or "us-east-1"
        self.bucket = config.text("etcd-s3-bucket")
        self.folder = config.text("etcd-s3-folder").strip("/")
        self.access_key = config.text("etcd-s3-access-key")
        self.secret_key = config.text("etcd-s3-secret-key")
        self.session_token = config.text("etcd-s3-session-token")
        self.insecure = config.flag("etcd-s3-insecure")
        self.timeout = parse_duration(config.text("etcd-s3-timeout") or "5m0s")
        if not self.bucket:
            raise S3Error("s3 bucket name was not set")
        lookup = config.text("etcd-s3-bucket-lookup-type") or "auto"
        if lookup not in ("auto", "dns", "path"):
            raise Fatal(f"invalid etcd-s3-bucket-lookup-type {lookup!r}: must be one of auto, dns, path")
        self.by_name = lookup == "dns" or (lookup == "auto" and self.endpoint.endswith("amazonaws.com"))
        self.context = self._context(config)

    @staticmethod
    def _context(config: Config) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if ca := config.text("etcd-s3-endpoint-ca"):
            try:
                if Path(ca).is_file():
                    context.load_verify_locations(ca)
                else:
                    context.load_verify_locations(cadata=base64.b64decode(ca, validate=True).decode())
            except (ssl.SSLError, binascii.Error, ValueError, OSError) as fault:
                raise S3Error(f"etcd-s3-endpoint-ca is neither a file nor base64 of certificates: {fault}") from fault
        if config.flag("etcd-s3-skip-ssl-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def key(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    def location(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def _request(
        self, method: str, key: str = "", query: dict[str, str] | None = None, body: bytes = b"",
        extra: dict[str, str] | None = None, good: tuple[int, ...] = (200,),
    ) -> bytes:  # fmt: skip
        host = f"{self.bucket}.{self.endpoint}" if self.by_name else self.endpoint
        path = "/" + "/".join(part for part in ("" if self.by_name else self.bucket, key) if part)
        path = quote(path, safe="/-_.~")
        digest = hashlib.sha256(body).hexdigest()
        headers = {
            "host": host,
            "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-content-sha256": digest,
            **(extra or {}),
        }
        if self.session_token:
            headers["x-amz-security-token"] = self.session_token
        authorization = sign(
            method, path, query or {}, headers, digest,
            region=self.region, access_key=self.access_key, secret_key=self.secret_key,
        )  # fmt: skip
        target = f"{path}?{canonical_query(query)}" if query else path
        connection: http.client.HTTPConnection
        if self.insecure:
            connection = http.client.HTTPConnection(host, timeout=self.timeout)
        else:
            connection = http.client.HTTPSConnection(host, timeout=self.timeout, context=self.context)
        try:
            connection.request(method, target, body, {**headers, "authorization": authorization})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as fault:
            raise S3Error(f"{method} {self.endpoint}{path}: {fault}") from fault
        finally:
            connection.close()
        if answer.status not in good:
            raise S3Error(f"{method} {self.endpoint}{path}: {answer.status} {_reason(content) or answer.reason}")
        return content

    def check(self) -> None:
        """Check that the bucket exists and the credentials give access."""
        self._request("GET", query={"list-type": "2", "max-keys": "1"})

    def put(self, name: str, content: bytes, metadata: dict[str, str]) -> None:
        extra = {f"x-amz-meta-{key}": value for key, value in metadata.items()}
        self._request("PUT", self.key(name), body=content, extra=extra)

    def get(self, name: str) -> bytes:
        return self._request("GET", self.key(name))

    def delete(self, name: str) -> None:
        self._request("DELETE", self.key(name), good=(200, 204))

    def list(self) -> list[Stored]:
        """All objects directly in the folder."""
        prefix = f"{self.folder}/" if self.folder else ""
        result: list[Stored] = []
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix, "delimiter": "/"}
            if token:
                query["continuation-token"] = token
            root = ET.fromstring(self._request("GET", query=query))
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            for entry in root.iter(f"{space}Contents"):
                values = {child.tag.removeprefix(space): child.text or "" for child in entry}
                modified = datetime.fromisoformat(values["LastModified"].replace("Z", "+00:00"))
                name = values["Key"].removeprefix(prefix)
                if name:
                    result.append(Stored(name, int(values["Size"]), modified))
            following = root.find(f"{space}NextContinuationToken")
            if following is None or not following.text:
                return result
            token = following.text


def _reason(content: bytes) -> str:
    try:
        root = ET.fromstring(content)
    except ET.ParseError:
        return ""
    values = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
    return f"{values.get('Code', '')}: {values.get('Message', '')}".strip(": ")
