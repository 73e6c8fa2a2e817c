"""DNS for hosts: the lab's names, and forwarding to the machine's servers (root: port 53)."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest

from lab.machines.base import MachineError
from lab.machines.resolver import Resolver, answer, parse_query

UPSTREAM, DEAD, LISTEN = "127.53.0.1", "127.53.0.3", "127.53.0.2"
A, AAAA, MX = 1, 28, 15
HEAD = struct.Struct(">HHHHHH")


def query(name: str, kind: int = A, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return HEAD.pack(number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def address_of(name: str) -> str | None:
    return {"s3.example.com": "198.18.0.9"}.get(name)


def test_queries_are_parsed() -> None:
    message = query("S3.Example.com", MX)
    assert parse_query(message) == ("s3.example.com", MX, len(message))


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
def test_other_messages_are_not_parsed(message: bytes) -> None:
    assert parse_query(message) is None
    assert answer(message, address_of) is None


def test_a_name_of_the_lab_has_an_ipv4_address_only() -> None:
    message = query("s3.example.com")
    reply = answer(message, address_of)
    assert reply is not None
    assert HEAD.unpack_from(reply) == (7, 0x8580, 1, 1, 0, 0)
    assert reply[12 : len(message)] == message[12:]
    assert reply.endswith(bytes([198, 18, 0, 9]))
    empty = answer(query("s3.example.com", AAAA), address_of)
    assert empty is not None and HEAD.unpack_from(empty)[3] == 0
    assert answer(query("example.com"), address_of) is None


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, listener = self.request
        listener.sendto(data.upper(), self.client_address)


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
    # The first of the machine's servers does not answer: the next one is used.
    started = Resolver(LISTEN, [DEAD, UPSTREAM], address_of)
    yield started
    started.close()
    for server in upstream:
        server.shutdown()
        server.server_close()


def by_datagram(message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exchange:
        exchange.settimeout(5)
        exchange.sendto(message, (LISTEN, 53))
        return exchange.recv(512)


def by_stream(message: bytes) -> bytes:
    with socket.create_connection((LISTEN, 53), 5) as stream:
        stream.sendall(struct.pack(">H", len(message)) + message)
        return stream.recv(514)[2:]


@pytest.mark.real
@pytest.mark.parametrize("exchange", [by_datagram, by_stream])
def test_names_of_the_lab_are_answered_and_others_forwarded(resolver: Resolver, exchange: object) -> None:
    assert callable(exchange)
    assert exchange(b"question") == b"QUESTION"
    assert exchange(query("example.org")) == query("example.org").upper()
    assert exchange(query("s3.example.com")).endswith(bytes([198, 18, 0, 9]))


@pytest.mark.real
def test_a_port_in_use_is_an_error(resolver: Resolver) -> None:
    with pytest.raises(MachineError, match="another DNS server listens"):
        Resolver(LISTEN, [UPSTREAM])
