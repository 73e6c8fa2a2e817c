"""HTTP/1.1 over asyncio streams: a server with client certificates and streamed responses, and a pooled client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import log

MAX_BODY = 16 * 1024 * 1024
MAX_HEAD = 64 * 1024
REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 410: "Gone",
    413: "Request Entity Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Entity",
    429: "Too Many Requests", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    remote: str = ""
    certificate: dict[str, str] | None = None
    """Subject of the verified client certificate: organizationName and commonName."""
    target: str = ""


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    relay: Relay | None = None
    """Another server's answer, in place of status and body."""


@dataclass(slots=True)
class Relay:
    """A connection to another server, to which the request was sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    bidirectional: bool
    """After an upgrade of the protocol the client sends on."""


def json_response(value: Any, status: int = 200, content_type: str = "application/json") -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode() + b"\n", content_type)


def text_response(text: str, status: int = 200) -> Response:
    return Response(status, text.encode(), "text/plain; charset=utf-8")


Handler = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """The request is not valid HTTP/1.1."""


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(client_ca)
    return context


def client_context(ca: Path | str | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Trust only `ca` (a path or PEM text); None trusts any server, for fetching a CA that is verified afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif isinstance(ca, str):
        context.load_verify_locations(cadata=ca)
    else:
        context.load_verify_locations(ca)
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    return context


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(f"malformed header line {line!r}")
        name = name.strip().lower()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return first, headers


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = b""
        async for chunk in _chunks(reader):
            body += chunk
            if len(body) > MAX_BODY:
                raise BadRequest("body too large")
        return body
    length = int(headers.get("content-length") or 0)
    if length > MAX_BODY:
        raise BadRequest("body too large")
    return await reader.readexactly(length) if length else b""


class Server:
    """Serves one handler on several listeners."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, port: int, context: ssl.SSLContext | None = None, host: str | None = None) -> None:
        self._servers.append(
            await asyncio.start_server(
                self._connected, host, port, ssl=context, limit=MAX_HEAD, reuse_address=True, backlog=512
            )
        )

    @property
    def ports(self) -> list[int]:
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self.guarded(reader, writer)
        finally:
            self._connections.discard(task)

    async def guarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remote: str = "") -> None:
        """Serve one connection; its errors are the client's and do not affect the server."""
        try:
            await self.serve(reader, writer, remote)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError, TimeoutError):
            pass  # The client disconnected or sent no valid HTTP.
        except (BadRequest, ValueError) as fault:
            with contextlib.suppress(OSError):
                await self._answer(writer, text_response(f"{fault}\n", 400), close=True)
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remote: str = "") -> None:
        peer = writer.get_extra_info("peername") or ("",)
        remote = remote or str(peer[0])
        certificate = None
        if raw := writer.get_extra_info("peercert"):
            certificate = {key: value for part in raw.get("subject", ()) for key, value in part}
        while True:
            first, headers = await _read_head(reader)
            words = first.split(" ")
            if len(words) != 3:
                raise BadRequest(f"malformed request line {first!r}")
            parts = urlsplit(words[1])
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = Request(
                method=words[0],
                path=unquote(parts.path),
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers=headers,
                body=await _read_body(reader, headers),
                remote=remote,
                certificate=certificate,
                target=words[1],
            )
            response = await self._handled(request)
            close = headers.get("connection", "").lower() == "close" or words[2] == "HTTP/1.0"
            if response.stream is not None:
                await self._stream(reader, writer, response)
                return
            if response.relay is not None:
                await self._relay(reader, writer, response.relay)
                return
            await self._answer(writer, response, close=close, head_only=words[0] == "HEAD")
            if close:
                return

    async def _handled(self, request: Request) -> Response:
        """The handler's response, or 500 and a log line when it raised an exception."""
        work = asyncio.ensure_future(self.handler(request))
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
        fault = work.exception()
        if fault is None:
            return work.result()
        trace = "".join(traceback.format_exception(fault))
        log.error(f"{request.method} {request.target} failed: {trace}")
        return text_response(f"Internal Server Error: {type(fault).__name__}: {fault}\n", 500)

    @staticmethod
    def _head(response: Response, extra: dict[str, str]) -> bytes:
        reason = REASONS.get(response.status, "Unknown")
        lines = [f"HTTP/1.1 {response.status} {reason}", f"Content-Type: {response.content_type}"]
        lines += [f"{name}: {value}" for name, value in {**response.headers, **extra}.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _answer(
        self, writer: asyncio.StreamWriter, response: Response, *, close: bool, head_only: bool = False
    ) -> None:
        extra = {"Content-Length": str(len(response.body))}
        if close:
            extra["Connection"] = "close"
        writer.write(self._head(response, extra) + (b"" if head_only else response.body))
        await writer.drain()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: Response) -> None:
        """Send chunks as they come; stop when the client closes the connection."""
        assert response.stream is not None
        stream = response.stream
        writer.write(self._head(response, {"Transfer-Encoding": "chunked"}))
        await writer.drain()

        async def pump() -> None:
            async for chunk in stream:
                writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()

        pumping = asyncio.ensure_future(pump())
        eof = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({pumping, eof}, return_when=asyncio.FIRST_COMPLETED)
            if pumping.done():
                pumping.result()
        finally:
            for task in (pumping, eof):
                task.cancel()
            await asyncio.gather(pumping, eof, return_exceptions=True)
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    @staticmethod
    async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay) -> None:
        """Copy bytes until the other server ends its answer."""

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(MAX_HEAD):
                target.write(data)
                await target.drain()

        sending = asyncio.ensure_future(copy(reader, relay.writer)) if relay.bidirectional else None
        try:
            await copy(relay.reader, writer)
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            relay.writer.close()


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests to one host and port, over persistent connections."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, *, authorization: str = "") -> None:
        self.host = host
        self.port = port
        self.context = context
        self.authorization = authorization
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, ssl=self.context, limit=MAX_BODY)

    def _head(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}:{self.port}", f"Content-Length: {len(body)}"]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    async def request(
        self, method: str, target: str, body: bytes = b"", *, timeout: float = 10, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request. A persistent connection that fails before the response starts is replaced once."""
        message = self._head(method, target, body, headers or {})
        async with asyncio.timeout(timeout):
            while True:
                reused = bool(self._idle)
                reader, writer = self._idle.pop() if reused else await self._open()
                keep_alive = False
                try:
                    writer.write(message)
                    await writer.drain()
                    first, fields = await _read_head(reader)
                    answer = Answer(int(first.split(" ")[1]), fields, await _read_body(reader, fields))
                    keep_alive = fields.get("connection", "").lower() != "close"
                    return answer
                except (ConnectionError, asyncio.IncompleteReadError) as fault:
                    if not reused:
                        raise ConnectionError(f"{self.host}:{self.port} closed the connection") from fault
                finally:
                    if keep_alive:
                        self._idle.append((reader, writer))
                    else:
                        writer.close()

    async def lines(self, method: str, target: str, body: bytes) -> AsyncIterator[bytes]:
        """The lines of a streamed response, until it ends."""
        reader, writer = await self._open()
        try:
            writer.write(self._head(method, target, body, {}))
            await writer.drain()
            first, headers = await _read_head(reader)
            if first.split(" ")[1] != "200":
                raise ConnectionError(f"{target} answered {first}: {(await _read_body(reader, headers))[:300]!r}")
            rest = b""
            async for chunk in _chunks(reader):
                rest += chunk
                *complete, rest = rest.split(b"\n")
                for line in complete:
                    if line.strip():
                        yield line
        except asyncio.IncompleteReadError as fault:
            raise ConnectionError(f"{self.host}:{self.port} ended the stream") from fault
        finally:
            writer.close()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def background(
    tasks: set[asyncio.Task[Any]], name: str, work: Coroutine[Any, Any, Any], *, essential: bool = False
) -> asyncio.Task[Any]:
    """Run `work` as a background task and log its failure.

    The failure of an essential task ends the process; systemd restarts it.
    """
    task = asyncio.create_task(work, name=name)
    tasks.add(task)

    def ended(done: asyncio.Task[Any]) -> None:
        tasks.discard(done)
        if not done.cancelled() and (fault := done.exception()) is not None:
            log.error(f"{name} failed: {''.join(traceback.format_exception(fault))}")
            if essential:
                os.kill(os.getpid(), signal.SIGTERM)

    task.add_done_callback(ended)
    return task
