"""The start of TLS for a client of PostgreSQL or PgBouncer: an SSLRequest before the handshake."""

from __future__ import annotations

import socket
import struct

# Length and code of an SSLRequest; the answer is S or N.
REQUEST = struct.pack(">ii", 8, 80877103)


def request_tls(connection: socket.socket) -> bool:
    """Send an SSLRequest; whether the server accepts TLS."""
    connection.sendall(REQUEST)
    return connection.recv(1) == b"S"
