"""The port probe: a real handshake on loopback."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.configuration import Probe
from ansible_collections.slipway.platform.plugins.module_utils.configuration_host import probe_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@contextlib.contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        if context is not None:
                            context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def serving(paths: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    return context


def test_a_port_that_answers_is_enough_without_tls() -> None:
    with listening() as port:
        assert probe_port(Probe("127.0.0.1", port)) is None


def test_a_closed_port_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probe_port(Probe("127.0.0.1", port)) == f"127.0.0.1 port {port} does not answer: no listener"


def test_the_right_certificate_is_accepted_and_another_is_reported(tmp_path: Path) -> None:
    served, other = certificate(tmp_path, "served"), certificate(tmp_path, "other")
    with listening(serving(served)) as port:
        assert probe_port(Probe("127.0.0.1", port, True, "a.example", str(served[0]))) is None
        fault = probe_port(Probe("127.0.0.1", port, True, "a.example", str(other[0])))
        assert fault == f"127.0.0.1 port {port} presents another certificate for a.example than {other[0]}"
        missing = probe_port(Probe("127.0.0.1", port, True, "a.example", str(tmp_path / "none")))
        assert missing is not None and "cannot be read" in missing


def test_tls_below_1_3_is_reported(tmp_path: Path) -> None:
    context = serving(certificate(tmp_path, "served"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with listening(context) as port:
        fault = probe_port(Probe("127.0.0.1", port, True, "a.example"))
    assert fault is not None and "rejects a TLS 1.3 handshake for a.example" in fault


@pytest.mark.parametrize("name", ["", "a.example"])
def test_the_server_name_is_sent(tmp_path: Path, name: str) -> None:
    context = serving(certificate(tmp_path, "served"))
    requested: list[str | None] = []
    context.sni_callback = lambda _socket, server_name, _context: requested.append(server_name)
    with listening(context) as port:
        assert probe_port(Probe("127.0.0.1", port, True, name)) is None
    assert requested == [name or None]


@contextlib.contextmanager
def postgres(answer: bytes, context: ssl.SSLContext) -> Iterator[int]:
    """A server that takes PostgreSQL's SSLRequest, and shakes hands if it answered S."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                assert connection.recv(8) == bytes([0, 0, 0, 8, 4, 210, 22, 47])
                connection.sendall(answer)
                if answer == b"S":
                    context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(("answer", "fault"), [(b"S", None), (b"N", "offers no TLS"), (b"", "offers no TLS")])
def test_postgresql_requires_a_tls_request_first(tmp_path: Path, answer: bytes, fault: str | None) -> None:
    served = certificate(tmp_path, "served")
    with postgres(answer, serving(served)) as port:
        faults = probe_port(Probe("127.0.0.1", port, True, "a.example", str(served[0]), starttls="postgres"))
    assert faults == (fault and f"127.0.0.1 port {port} {fault}")
