"""Name resolution for hosts: the machine's own servers, or a relay where those listen on its loopback only."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
# systemd-resolved keeps the servers behind its loopback listener here.
UPSTREAM_CONF = Path("/run/systemd/resolve/resolv.conf")
_TIMEOUT_SECONDS = 5
_MESSAGE_BYTES = 65535


def servers(text: str) -> list[str]:
    """Addresses in a resolv.conf, in order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            found.append(words[1].partition("%")[0])
    return found


def reachable(addresses: list[str]) -> list[str]:
    """Those a host can ask: not a loopback, and not IPv6, which has no way out of the lab."""
    parsed = [ip_address(address) for address in addresses]
    return [str(address) for address in parsed if address.version == 4 and not address.is_loopback]


def machine_servers() -> list[str]:
    for path in (RESOLV_CONF, UPSTREAM_CONF):
        if path.is_file() and (found := reachable(servers(path.read_text()))):
            return found
    return []


class Relay:
    """Passes questions of hosts on to the machine's loopback resolver."""

    def __init__(self, address: str, upstream: str) -> None:
        _Datagram.upstream = upstream
        _Stream.upstream = upstream
        self._servers: list[socketserver.BaseServer] = [
            _Udp((address, 53), _Datagram),
            _Tcp((address, 53), _Stream),
        ]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="resolver", daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Datagram(socketserver.BaseRequestHandler):
    upstream = "127.0.0.1"

    def handle(self) -> None:
        question, listener = self.request
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
            ask.settimeout(_TIMEOUT_SECONDS)
            try:
                ask.sendto(question, (self.upstream, 53))
                listener.sendto(ask.recv(_MESSAGE_BYTES), self.client_address)
            except OSError as error:
                log.warning("resolver %s does not answer: %s", self.upstream, error)


class _Stream(socketserver.BaseRequestHandler):
    upstream = "127.0.0.1"

    def handle(self) -> None:
        client: socket.socket = self.request
        try:
            with socket.create_connection((self.upstream, 53), _TIMEOUT_SECONDS) as ask:
                back = threading.Thread(target=_copy, args=(ask, client), daemon=True)
                back.start()
                _copy(client, ask)
                back.join(_TIMEOUT_SECONDS)
        except OSError as error:
            log.warning("resolver %s does not answer: %s", self.upstream, error)


def _copy(source: socket.socket, target: socket.socket) -> Any:
    source.settimeout(_TIMEOUT_SECONDS)
    try:
        while data := source.recv(_MESSAGE_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError as error:
        log.debug("a question over TCP ended: %s", error)
