"""Minimal S3 client: requests signed with AWS Signature Version 4, over verified TLS.

Standard library only, so that modules can use it on hosts of the platform and on the controller.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from urllib.parse import quote, urlsplit

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
BLOCK_BYTES = 1 << 20
PART_BYTES = 16 << 20
"""Of a multipart upload, which has at most 10,000 parts: 160 GB."""


class S3Error(Exception):
    """The store rejected a request, or is unreachable (then `status` is 0 and `code` is empty).

    `date` is the time of the store in its answer; the cause of an unreachable store is the `__cause__`.
    """

    def __init__(self, message: str, status: int = 0, code: str = "", date: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.date = status, code, date


@dataclass(frozen=True)
class Key:
    """An access key and its secret, which repr omits."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def xml(self) -> ET.Element:
        """The body without XML namespaces, which differ between stores."""
        root = ET.fromstring(self.body)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root


@dataclass(frozen=True)
class Entry:
    """An object in a listing."""

    key: str
    size_bytes: int
    etag: str
    modified: str


def canonical_query(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in sorted(query.items()))


def authorization(
    key: Key,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    digest: str,
    *,
    region: str,
) -> str:
    """The Authorization header; signs all given headers (lower case, with host and x-amz-date)."""
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    request = "\n".join([method, path, canonical_query(query), lines, names, digest])
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    signing = f"AWS4{key.secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.new(signing, text.encode(), "sha256").hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={key.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


class _Connection(http.client.HTTPSConnection):
    """Connects to given addresses; Host, SNI and certificate verification use the name."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._addresses = addresses
        self._tls = context

    def connect(self) -> None:
        for address in self._addresses:
            try:
                raw = socket.create_connection((address, self.port), self.timeout)
                break
            except OSError:
                if address == self._addresses[-1]:
                    raise
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)


class Store:
    """One S3 endpoint, accessed with one key."""

    def __init__(
        self,
        endpoint: str,
        key: Key,
        *,
        region: str,
        ca_certificate: str = "",
        addresses: Sequence[str] = (),
        timeout_seconds: float = 20,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise S3Error(f"{endpoint}: not an S3 endpoint. Give a URL like https://s3.example.com")
        self.endpoint = f"https://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port or 443
        self._header = parts.netloc
        self._key, self._region = key, region
        self._addresses = tuple(addresses) or (self._host,)
        self._timeout = timeout_seconds
        self._context = ssl.create_default_context(cadata=ca_certificate or None)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One signed request by path (`/bucket/key`); an error status raises S3Error with the store's code."""
        connection, raw = self._send(method, path, query, body, headers)
        try:
            answer = Answer(raw.status, {name.lower(): value for name, value in raw.getheaders()}, raw.read())
        except (OSError, http.client.HTTPException) as error:
            raise S3Error(f"{self.endpoint}: no answer ({error})") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise error_from(f"{method} {self.endpoint}{quote(path, safe='/-_.~')}", answer)
        return answer

    def download(self, path: str) -> Iterator[bytes]:
        """The blocks of an object; an object that ends early raises S3Error."""
        connection, raw = self._send("GET", path)
        try:
            if raw.status >= 300:
                answer = Answer(raw.status, {name.lower(): value for name, value in raw.getheaders()}, raw.read())
                raise error_from(f"GET {self.endpoint}{quote(path, safe='/-_.~')}", answer)
            while block := raw.read(BLOCK_BYTES):
                yield block
            if raw.length:
                raise S3Error(f"{self.endpoint}: {raw.length} bytes of {path} are missing in the answer")
        except (OSError, http.client.HTTPException) as error:
            raise S3Error(f"{self.endpoint}: no answer ({error})") from error
        finally:
            connection.close()

    def upload(self, path: str, blocks: Iterable[bytes]) -> None:
        """Store the blocks as one object: in one request if they fit in one part, else in several."""
        parts = _joined(blocks, PART_BYTES)
        first = next(parts, b"")
        if len(first) < PART_BYTES:
            self.request("PUT", path, body=first)
            return
        upload = self.request("POST", path, {"uploads": ""}).xml().findtext("UploadId") or ""
        try:
            root = ET.Element("CompleteMultipartUpload", xmlns=NAMESPACE)
            for number, part in enumerate(chain([first], parts), 1):
                answer = self.request("PUT", path, {"partNumber": str(number), "uploadId": upload}, part)
                element = ET.SubElement(root, "Part")
                ET.SubElement(element, "PartNumber").text = str(number)
                ET.SubElement(element, "ETag").text = answer.headers.get("etag", "")
            done = self.request("POST", path, {"uploadId": upload}, ET.tostring(root)).xml()
            if done.tag == "Error":  # with status 200, since the store answers before it has joined the parts
                raise S3Error(f"PUT {self.endpoint}{path}: {done.findtext('Code')} {done.findtext('Message')}")
        except BaseException:
            self.request("DELETE", path, {"uploadId": upload})
            raise

    def list_objects(self, bucket: str, prefix: str) -> list[Entry]:
        """All objects whose key begins with the prefix."""
        found: list[Entry] = []
        query = {"list-type": "2", "prefix": prefix}
        while True:
            root = self.request("GET", f"/{bucket}", query).xml()
            found += [
                Entry(
                    element.findtext("Key") or "",
                    int(element.findtext("Size") or 0),
                    (element.findtext("ETag") or "").strip('"'),
                    element.findtext("LastModified") or "",
                )
                for element in root.findall("Contents")
            ]
            if root.findtext("IsTruncated") != "true":
                return found
            query["continuation-token"] = root.findtext("NextContinuationToken") or ""

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        parameters = dict(query or {})
        quoted = quote(path, safe="/-_.~")
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            "host": self._header,
            "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-content-sha256": digest,
            **(headers or {}),
        }
        if body:
            # S3 requires Content-MD5 with locks and lifecycles; it serves no security purpose here.
            signed["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        signed["authorization"] = authorization(
            self._key, method, quoted, parameters, signed, digest, region=self._region
        )
        target = f"{quoted}?{canonical_query(parameters)}" if parameters else quoted
        connection = _Connection(self._host, self._port, self._addresses, self._context, self._timeout)
        try:
            connection.request(method, target, body or None, signed)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise S3Error(f"{self.endpoint}: no answer ({error})") from error


def _joined(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of one size, the last one smaller."""
    kept = bytearray()
    for block in blocks:
        kept += block
        while len(kept) >= size:
            yield bytes(kept[:size])
            del kept[:size]
    if kept:
        yield bytes(kept)


def error_from(request: str, answer: Answer) -> S3Error:
    """The error of a request with the status, code and message of the store."""
    code, message = "", ""
    try:
        root = answer.xml()
        code, message = root.findtext("Code") or "", root.findtext("Message") or ""
    except ET.ParseError:
        pass  # a HEAD has no body
    details = " ".join(part for part in (str(answer.status), code, message) if part)
    return S3Error(f"{request}: {details}", answer.status, code, answer.headers.get("date", ""))
