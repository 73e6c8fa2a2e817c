"""DNS for hosts: answers for the public names of the lab's servers, and forwards the rest to the machine's DNS servers.

The name of a server is that of its reverse DNS entry (`hetzner.hcloud.rdns`).
"""

from __future__ import annotations

import logging
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from lab.machines.base import MachineError

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
# The upstream servers of systemd-resolved.
UPSTREAM_CONF = Path("/run/systemd/resolve/resolv.conf")
_TIMEOUT_SECONDS = 5
_MESSAGE_BYTES = 65535
_HEADER = struct.Struct(">HHHHHH")
_ADDRESS_TYPE, _INTERNET = 1, 1
_TTL_SECONDS = 10

AddressOf = Callable[[str], str | None]
"""The IPv4 address of a lower-case name without trailing dot, or None when no server has the name."""


def servers(text: str) -> list[str]:
    """Addresses in a resolv.conf, in order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            found.append(words[1].partition("%")[0])
    return found


def reachable(addresses: list[str]) -> list[str]:
    """Servers that a host can reach: no loopback address, and no IPv6, which is not routed out of the lab."""
    parsed = [ip_address(address) for address in addresses]
    return [str(address) for address in parsed if address.version == 4 and not address.is_loopback]


def machine_servers() -> list[str]:
    for path in (RESOLV_CONF, UPSTREAM_CONF):
        if path.is_file() and (found := reachable(servers(path.read_text()))):
            return found
    return []


def upstream_servers() -> list[str]:
    """The DNS servers of this machine, including one on its loopback address."""
    return machine_servers() or servers(RESOLV_CONF.read_text()) or ["127.0.0.1"]


def parse_query(message: bytes) -> tuple[str, int, int] | None:
    """(name, type, offset after the question) of a standard query; None for other messages."""
    if len(message) < _HEADER.size:
        return None
    _, flags, questions, *_ = _HEADER.unpack_from(message)
    if flags & 0xF800 or questions != 1:  # an answer, or no standard query
        return None
    labels, position = [], _HEADER.size
    while position < len(message) and (length := message[position]):
        if length > 63:
            return None
        labels.append(message[position + 1 : position + 1 + length])
        position += 1 + length
    if position + 5 > len(message):
        return None
    kind, network = struct.unpack_from(">HH", message, position + 1)
    if network != _INTERNET:
        return None
    return b".".join(labels).decode("ascii", errors="replace").lower(), kind, position + 5


def answer(message: bytes, address_of: AddressOf) -> bytes | None:
    """The response for a name of the lab; None when the query is to be forwarded."""
    parsed = parse_query(message)
    if parsed is None or (address := address_of(parsed[0])) is None:
        return None
    _, kind, end = parsed
    number, flags = struct.unpack_from(">HH", message)
    # The lab's names have IPv4 addresses only: other types get a response without records.
    records = b""
    if kind == _ADDRESS_TYPE:
        packed = IPv4Address(address).packed
        records = struct.pack(">HHHIH", 0xC00C, _ADDRESS_TYPE, _INTERNET, _TTL_SECONDS, len(packed)) + packed
    # Flags: response, authoritative; recursion desired as in the query.
    header = _HEADER.pack(number, 0x8480 | flags & 0x0100, 1, bool(records), 0, 0)
    return header + message[_HEADER.size : end] + records


class Resolver:
    """A DNS server on one address of this machine."""

    def __init__(self, address: str, upstream: Sequence[str], address_of: AddressOf = lambda name: None) -> None:
        self.upstream = tuple(upstream)
        self.address_of = address_of
        try:
            self._servers: list[socketserver.BaseServer] = [
                _Udp((address, 53), _handler(_Datagram, self)),
                _Tcp((address, 53), _handler(_Stream, self)),
            ]
        except OSError as error:
            raise MachineError(
                f"port 53 of {address} is not available ({error.strerror}): another DNS server listens on every "
                "address of this machine. Configure it to listen on its own addresses only."
            ) from error
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="resolver", daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def resolve(self, message: bytes, send: Callable[[bytes, str], bytes]) -> bytes | None:
        """The response to a query: the lab's own, or that of the first upstream server that answers."""
        if (own := answer(message, self.address_of)) is not None:
            return own
        for server in self.upstream:
            try:
                return send(message, server)
            except OSError as error:
                log.warning("resolver %s does not answer: %s", server, error)
        return None


def _handler(kind: type[_Handler], resolver: Resolver) -> type[_Handler]:
    return type(kind.__name__, (kind,), {"resolver": resolver})


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(socketserver.BaseRequestHandler):
    resolver: Resolver


class _Datagram(_Handler):
    def handle(self) -> None:
        message, listener = self.request
        if (reply := self.resolver.resolve(message, _by_datagram)) is not None:
            listener.sendto(reply, self.client_address)


class _Stream(_Handler):
    """DNS over TCP: each message has its length in front."""

    def handle(self) -> None:
        client: socket.socket = self.request
        client.settimeout(_TIMEOUT_SECONDS)
        try:
            while message := _framed(client):
                reply = self.resolver.resolve(message, _by_stream)
                if reply is None:
                    return
                client.sendall(struct.pack(">H", len(reply)) + reply)
        except OSError as error:
            log.debug("a DNS connection over TCP failed: %s", error)


def _by_datagram(message: bytes, server: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolve:
        resolve.settimeout(_TIMEOUT_SECONDS)
        resolve.connect((server, 53))
        resolve.send(message)
        return resolve.recv(_MESSAGE_BYTES)


def _by_stream(message: bytes, server: str) -> bytes:
    with socket.create_connection((server, 53), _TIMEOUT_SECONDS) as resolve:
        resolve.sendall(struct.pack(">H", len(message)) + message)
        reply = _framed(resolve)
    if not reply:
        raise ConnectionError("the connection was closed without an answer")
    return reply


def _framed(stream: socket.socket) -> bytes:
    """One message from a stream, empty at its end."""
    length = _exactly(stream, 2)
    return _exactly(stream, struct.unpack(">H", length)[0]) if length else b""


def _exactly(stream: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = stream.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return parts
