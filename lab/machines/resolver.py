"""DNS for hosts: answers for the public names of the lab's servers, and forwards the rest to the machine's DNS servers.

The name of a server is that of its reverse DNS entry (`hetzner.hcloud.rdns`).
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.message import Message

from lab.machines.base import MachineError

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
# The upstream servers of systemd-resolved.
UPSTREAM_CONF = Path("/run/systemd/resolve/resolv.conf")
_TIMEOUT_SECONDS = 5
_TTL_SECONDS = 10
_PLAIN_BYTES = 512  # of a response to a client that does not announce more (RFC 1035)

AddressOf = Callable[[str], str | None]
"""The IPv4 address of a lower-case name without trailing dot, or None when no server has the name."""
Forward = Callable[..., Message]
"""Sends a query to a server within a timeout, as `dns.query.tcp`."""


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


def answer(query: Message, address_of: AddressOf) -> Message | None:
    """The response for a name of the lab; None when the query is to be forwarded."""
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return None
    (question,) = query.question
    address = address_of(question.name.to_text(omit_final_dot=True).lower())
    if address is None or question.rdclass != dns.rdataclass.IN:
        return None
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.AA
    if question.rdtype == dns.rdatatype.A:  # the lab's names have IPv4 addresses only
        response.answer.append(dns.rrset.from_text(question.name, _TTL_SECONDS, "IN", "A", address))
    return response


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

    def resolve(self, query: Message, forward: Forward) -> Message | None:
        """The response to a query: the lab's own, or that of the first upstream server that answers."""
        if (own := answer(query, self.address_of)) is not None:
            return own
        for server in self.upstream:
            try:
                return forward(query, server, timeout=_TIMEOUT_SECONDS)
            except (OSError, EOFError, dns.exception.DNSException) as error:
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
        wire, listener = self.request
        try:
            query = dns.message.from_wire(wire)
            if (response := self.resolver.resolve(query, _by_datagram)) is not None:
                size = max(query.payload, _PLAIN_BYTES)
                listener.sendto(response.to_wire(max_size=size, prefer_truncation=True), self.client_address)
        except dns.exception.DNSException as error:
            log.debug("a DNS message of %s failed: %s", self.client_address[0], error)


def _by_datagram(query: Message, server: str, timeout: float) -> Message:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
        connected.connect((server, 53))  # so that a closed port is an error at once
        connected.setblocking(False)
        return dns.query.udp(query, server, timeout, sock=connected)


class _Stream(_Handler):
    def handle(self) -> None:
        self.request.settimeout(_TIMEOUT_SECONDS)
        try:
            while True:
                query, _ = dns.query.receive_tcp(self.request)
                response = self.resolver.resolve(query, dns.query.tcp)
                if response is None:
                    return
                dns.query.send_tcp(self.request, response)
        except (OSError, EOFError, dns.exception.DNSException) as error:
            log.debug("a DNS connection of %s ended: %s", self.client_address[0], error)
