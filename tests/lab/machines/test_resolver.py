"""DNS for hosts: the lab's names, and forwarding to the machine's servers (root: port 53)."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rrset
import pytest
from dns.message import Message

from lab.machines.base import MachineError
from lab.machines.resolver import Resolver, answer

UPSTREAM, DEAD, LISTEN = "127.53.0.1", "127.53.0.3", "127.53.0.2"


def address_of(name: str) -> str | None:
    return {"s3.example.com": "198.18.0.9"}.get(name)


def addresses(response: Message) -> list[str]:
    return [record.to_text() for records in response.answer for record in records]


def test_a_name_of_the_lab_has_an_ipv4_address_only() -> None:
    query = dns.message.make_query("S3.Example.com", "A")
    response = answer(query, address_of)
    assert response is not None and query.is_response(response)
    assert response.flags & (dns.flags.AA | dns.flags.RA) == dns.flags.AA | dns.flags.RA
    assert addresses(response) == ["198.18.0.9"]
    empty = answer(dns.message.make_query("s3.example.com", "AAAA"), address_of)
    assert empty is not None and empty.rcode() == 0 and addresses(empty) == []


def test_other_queries_are_forwarded() -> None:
    update = dns.message.make_query("s3.example.com", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    two = dns.message.make_query("s3.example.com", "A")
    two.question *= 2
    chaos = dns.message.make_query("s3.example.com", "TXT", "CH")
    for query in (dns.message.make_query("example.com", "A"), update, two, chaos):
        assert answer(query, address_of) is None


def replied(wire: bytes) -> bytes:
    """The answer of the upstream server: more addresses than a plain datagram holds."""
    response = dns.message.make_response(dns.message.from_wire(wire))
    name = response.question[0].name
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *(f"192.0.2.{number}" for number in range(60))))
    return response.to_wire()


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, listener = self.request
        listener.sendto(replied(data), self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        length = struct.unpack(">H", self.request.recv(2))[0]
        reply = replied(self.request.recv(length))
        self.request.sendall(struct.pack(">H", len(reply)) + reply)


class _Upstream(socketserver.ThreadingTCPServer):
    allow_reuse_address = True  # a connection of an earlier run may still be in TIME_WAIT


@pytest.fixture(scope="module")
def resolver() -> Iterator[Resolver]:
    upstream: list[socketserver.BaseServer] = [
        socketserver.ThreadingUDPServer((UPSTREAM, 53), _Udp),
        _Upstream((UPSTREAM, 53), _Tcp),
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


@pytest.mark.real
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_names_of_the_lab_are_answered_and_others_forwarded(resolver: Resolver, protocol: str) -> None:
    def request(name: str) -> Message:
        exchange = {"udp": dns.query.udp, "tcp": dns.query.tcp}[protocol]
        return exchange(dns.message.make_query(name, "A", payload=4096), LISTEN, timeout=5)

    assert addresses(request("s3.example.com")) == ["198.18.0.9"]
    assert len(addresses(request("example.org"))) == 60


@pytest.mark.real
def test_a_datagram_holds_what_its_client_accepts(resolver: Resolver) -> None:
    query = dns.message.make_query("example.org", "A")
    response = dns.query.udp(query, LISTEN, timeout=5)
    assert response.flags & dns.flags.TC and len(addresses(response)) < 60


@pytest.mark.real
@pytest.mark.parametrize("junk", [b"", b"question", b"\xff" * 40], ids=["empty", "text", "ones"])
def test_junk_ends_no_server(resolver: Resolver, junk: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exchange:
        exchange.sendto(junk, (LISTEN, 53))
    with socket.create_connection((LISTEN, 53), 5) as stream:
        stream.sendall(struct.pack(">H", len(junk)) + junk)
    found = dns.query.udp(dns.message.make_query("s3.example.com", "A"), LISTEN, timeout=5)
    assert addresses(found) == ["198.18.0.9"]


@pytest.mark.real
def test_a_port_in_use_is_an_error(resolver: Resolver) -> None:
    with pytest.raises(MachineError, match="another DNS server listens"):
        Resolver(LISTEN, [UPSTREAM])
