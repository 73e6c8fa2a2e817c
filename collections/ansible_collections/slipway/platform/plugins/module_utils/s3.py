"""As much of S3 as buckets need to be kept: requests signed with AWS Signature Version 4 over verified TLS.

Standard library only, so that it runs wherever a module runs: on a host of the platform or on the controller.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Error(Exception):
    """The store refused, or could not be reached (then `status` is 0 and `code` is empty)."""

    def __init__(self, sentence: str, status: int = 0, code: str = "") -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Key:
    """An access key and its secret, which is never shown."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def xml(self) -> ET.Element:
        """The body without namespaces, which stores do not agree on."""
        root = ET.fromstring(self.body)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root


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
    """The Authorization header for these lower-case headers, among them host and x-amz-date; all of them are signed."""
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
    """Goes to addresses of our choice; the name is still what is asked for and what the certificate must bear."""

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
    """One S3 endpoint as the holder of one key sees it."""

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
            raise S3Error(f"the endpoint {endpoint} is no address such as https://s3.example.com")
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
        """One signed request by path (`/bucket/key`); a refusal is an S3Error with the store's own code."""
        asked = dict(query or {})
        quoted = quote(path, safe="/-_.~")
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            "host": self._header,
            "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-content-sha256": digest,
            **(headers or {}),
        }
        if body:
            # Old rules want MD5 with locks and lifecycles; it says nothing about trust here.
            signed["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        signed["authorization"] = authorization(self._key, method, quoted, asked, signed, digest, region=self._region)
        target = f"{quoted}?{canonical_query(asked)}" if asked else quoted
        connection = _Connection(self._host, self._port, self._addresses, self._context, self._timeout)
        try:
            connection.request(method, target, body or None, signed)
            raw = connection.getresponse()
            answer = Answer(raw.status, {name.lower(): value for name, value in raw.getheaders()}, raw.read())
        except (OSError, http.client.HTTPException) as error:
            raise S3Error(f"{self.endpoint} does not answer ({error})") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise refusal(f"{method} {self.endpoint}{quoted}", answer)
        return answer


def refusal(what: str, answer: Answer) -> S3Error:
    """What the store said, as one sentence."""
    code, message = "", ""
    try:
        root = answer.xml()
        code, message = root.findtext("Code") or "", root.findtext("Message") or ""
    except ET.ParseError:
        pass  # a HEAD has no body
    said = " ".join(part for part in (str(answer.status), code, message) if part)
    return S3Error(f"{what} was answered {said}", answer.status, code)
