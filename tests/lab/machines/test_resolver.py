"""The relay to a resolver on the machine's loopback (root: port 53)."""

from __future__ import annotations

import socket
import socketserver
import threading

import pytest

from lab.machines.resolver import Relay

pytestmark = pytest.mark.real
UPSTREAM, LISTEN = "127.53.0.1", "127.53.0.2"


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        question, listener = self.request
        listener.sendto(question.upper(), self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(512).upper())


def test_questions_are_passed_on() -> None:
    upstream: list[socketserver.BaseServer] = [
        socketserver.ThreadingUDPServer((UPSTREAM, 53), _Udp),
        socketserver.ThreadingTCPServer((UPSTREAM, 53), _Tcp),
    ]
    for server in upstream:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    relay = Relay(LISTEN, UPSTREAM)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
            ask.settimeout(5)
            ask.sendto(b"question", (LISTEN, 53))
            assert ask.recv(512) == b"QUESTION"
        with socket.create_connection((LISTEN, 53), 5) as stream:
            stream.sendall(b"question")
            assert stream.recv(512) == b"QUESTION"
    finally:
        relay.close()
        for server in upstream:
            server.shutdown()
            server.server_close()
