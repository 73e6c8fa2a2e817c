"""Name resolution of hosts: our own names, and everything else from the machine's server (root: port 53)."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest

from lab.machines.base import MachineError
from lab.machines.resolver import Resolver, answer, question

UPSTREAM, DEAD, LISTEN = "127.53.0.1", "127.53.0.3", "127.53.0.2"
A, AAAA, MX = 1, 28, 15
HEAD = struct.Struct(">HHHHHH")


def query(name: str, kind: int = A, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return HEAD.pack(number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def ours(name: str) -> str | None:
    return {"s3.example.com": "198.18.0.9"}.get(name)


def test_a_query_is_read() -> None:
    message = query("S3.Example.com", MX)
    assert question(message) == ("s3.example.com", MX, len(message))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"question",
        query("a")[:-3],
        HEAD.pack(1, 0x8180, 1, 0, 0, 0) + query("a")[12:],
        HEAD.pack(1, 0x0100, 2, 0, 0, 0) + query("a")[12:],
        HEAD.pack(1, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c" + query("a")[12:],
    ],
)
def test_what_is_no_ordinary_query_is_passed_on(message: bytes) -> None:
    assert question(message) is None
    assert answer(message, ours) is None


def test_our_name_has_an_address_and_nothing_else() -> None:
    message = query("s3.example.com")
    reply = answer(message, ours)
    assert reply is not None
    assert HEAD.unpack_from(reply) == (7, 0x8580, 1, 1, 0, 0)
    assert reply[12 : len(message)] == message[12:]
    assert reply.endswith(bytes([198, 18, 0, 9]))
    empty = answer(query("s3.example.com", AAAA), ours)
    assert empty is not None and HEAD.unpack_from(empty)[3] == 0
    assert answer(query("example.com"), ours) is None


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        asked, listener = self.request
        listener.sendto(asked.upper(), self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        length = struct.unpack(">H", self.request.recv(2))[0]
        self.request.sendall(struct.pack(">H", length) + self.request.recv(length).upper())


@pytest.fixture(scope="module")
def resolver() -> Iterator[Resolver]:
    upstream: list[socketserver.BaseServer] = [
        socketserver.ThreadingUDPServer((UPSTREAM, 53), _Udp),
        socketserver.ThreadingTCPServer((UPSTREAM, 53), _Tcp),
    ]
    for server in upstream:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    # The first of the machine's servers is dead: the next one is asked.
    made = Resolver(LISTEN, [DEAD, UPSTREAM], ours)
    yield made
    made.close()
    for server in upstream:
        server.shutdown()
        server.server_close()


def by_datagram(message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
        ask.settimeout(5)
        ask.sendto(message, (LISTEN, 53))
        return ask.recv(512)


def by_stream(message: bytes) -> bytes:
    with socket.create_connection((LISTEN, 53), 5) as stream:
        stream.sendall(struct.pack(">H", len(message)) + message)
        return stream.recv(514)[2:]


@pytest.mark.real
@pytest.mark.parametrize("ask", [by_datagram, by_stream])
def test_strange_names_are_passed_on_and_ours_are_answered(resolver: Resolver, ask: object) -> None:
    assert callable(ask)
    assert ask(b"question") == b"QUESTION"
    assert ask(query("example.org")) == query("example.org").upper()
    assert ask(query("s3.example.com")).endswith(bytes([198, 18, 0, 9]))


@pytest.mark.real
def test_a_port_that_somebody_else_has_is_told(resolver: Resolver) -> None:
    with pytest.raises(MachineError, match="another program answers names"):
        Resolver(LISTEN, [UPSTREAM])
