"""The metadata service: 169.254.169.254 in the router and in every private network.

The listening sockets are opened in those namespaces. A client is identified by the namespace and by its source address,
which strict reverse path filtering protects against spoofing.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.machines import namespaces
from lab.machines.base import MetadataHandler
from lab.machines.router import METADATA

log = logging.getLogger(__name__)

Owner = Callable[[str], int | None]
"""Source address → server id."""


class _Server(ThreadingHTTPServer):
    """Serves a bound socket; the base class would resolve its host name, which is slow without a resolver."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listener: socket.socket, answer: Callable[[str, str], tuple[int, str, str] | None]) -> None:
        super().__init__((METADATA, 80), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = METADATA, 80
        self.answer = answer

    def handle_error(self, request: object, client_address: object) -> None:
        """A host closed the connection during a response, or stopped."""
        log.info("metadata for %s was not delivered", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    # cloud-init sends one request at a time.
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        found = self.server.answer(self.client_address[0], self.path.partition("?")[0])
        status, kind, body = found if found is not None else (404, "text/plain", "not found\n")
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("metadata %s %s", self.client_address[0], format % args)


class Metadata:
    """Listeners by namespace."""

    def __init__(self, handler: MetadataHandler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._servers: dict[str, _Server] = {}

    def listen(self, namespace: str, owner: Owner) -> None:
        """Listen in this namespace; a listener in an earlier namespace of the same name is closed first."""

        def answer(source: str, path: str) -> tuple[int, str, str] | None:
            server_id = owner(source)
            return None if server_id is None else self._handler(server_id, path)

        self.stop_listening(namespace)
        server = _Server(namespaces.inside(namespace, _bind), answer)
        with self._lock:
            self._servers[namespace] = server
        threading.Thread(target=server.serve_forever, name=f"metadata-{namespace}", daemon=True).start()

    def listens(self, namespace: str) -> bool:
        with self._lock:
            return namespace in self._servers

    def stop_listening(self, namespace: str) -> None:
        with self._lock:
            server = self._servers.pop(namespace, None)
        if server:
            server.shutdown()
            server.server_close()

    def close(self) -> None:
        for namespace in list(self._servers):
            self.stop_listening(namespace)


def _bind() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # At a restart two daemons may overlap.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((METADATA, 80))
    listener.listen(128)
    return listener
