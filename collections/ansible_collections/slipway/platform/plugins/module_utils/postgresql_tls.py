"""How a client of PostgreSQL or PgBouncer comes to a TLS handshake: it asks in their protocol first."""

from __future__ import annotations

import socket
import struct

# Length and code of an SSLRequest, which is answered with S or N.
REQUEST = struct.pack(">ii", 8, 80877103)


def request_tls(connection: socket.socket) -> bool:
    """Ask for TLS; whether the server is ready to shake hands."""
    connection.sendall(REQUEST)
    return connection.recv(1) == b"S"
