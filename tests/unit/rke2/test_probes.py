"""Probes against servers of this test: what is right is silent, what is wrong is one sentence."""

from __future__ import annotations

import base64
import contextlib
import errno
import http.server
import json
import os
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter import verify
from ansible_collections.slipway.platform.plugins.module_utils import probes
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "apps.example.com"
VERSION = "v1.36.3+rke2r1"
NODES = [
    {
        "metadata": {"name": "s1"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": VERSION}},
    }
]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(308)
            self.send_header("Location", f"https://{self.headers['Host']}{self.path.removeprefix('/moved')}/")
            self.end_headers()
            return
        body = json.dumps({"items": NODES} if self.path == "/api/v1/nodes" else {"node": "s1"}).encode()
        self.send_response(404 if self.path == "/nothing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.answer(201)

    def do_DELETE(self) -> None:
        self.answer(200)

    def answer(self, status: int) -> None:
        """Of a store that takes writes, unless the server is told that its store is full."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        written = self.server.__dict__.setdefault("written", [])
        written.append((self.command, self.path))
        full = self.server.__dict__.get("full")
        body = b"etcdserver: mvcc: database space exceeded" if full else b"{}"
        self.send_response(500 if full else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


def certificate(folder: Path) -> tuple[str, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    pem = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(pem + private)
    return pem.decode(), path


def serve(context: ssl.SSLContext | None) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    authority, path = certificate(tmp_path_factory.mktemp("probes"))
    modern, old = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (modern, old):
        context.load_cert_chain(path)
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    servers = {"modern": serve(modern), "old": serve(old), "plain": serve(None)}
    yield {"authority": authority, **{name: server.server_address[1] for name, server in servers.items()}}
    for server in servers.values():
        server.shutdown()


def run(targets: dict[str, Any], kind: str, target: str, **changes: Any) -> list[str]:
    probe = {
        "name": "p",
        "kind": kind,
        "address": "127.0.0.1",
        "port": targets[target],
        "server_name": NAME,
        "path": "/",
        "statuses": [200],
        "authority": targets["authority"],
        "valid_days": 0,
    }
    return probes.run([probe | changes], 5)[0]


def test_what_is_right_is_silent(targets: dict[str, Any]) -> None:
    assert run(targets, "https", "modern") == []
    assert run(targets, "tls_refused", "modern") == []
    assert run(targets, "redirect", "plain", path="/moved") == []


def test_answers_are_kept_as_evidence(targets: dict[str, Any]) -> None:
    probe = {"name": "p", "kind": "https", "address": "127.0.0.1", "port": targets["modern"], "server_name": NAME}
    wanted = {"path": "/", "statuses": [200], "authority": targets["authority"], "valid_days": 0}
    _, seen = probes.run([probe | wanted], 5)
    assert seen == {"p": {"status": 200, "tls": "TLSv1.3", "json": {"node": "s1"}}}


def test_old_tls_is_found(targets: dict[str, Any]) -> None:
    assert "negotiated TLSv1.2, not TLSv1.3" in run(targets, "https", "old")[0]
    assert "accepts TLSv1.2" in run(targets, "tls_refused", "old")[0]


def test_a_wrong_status_is_found(targets: dict[str, Any]) -> None:
    assert "answers 404, not 200" in run(targets, "https", "modern", path="/nothing")[0]
    assert run(targets, "https", "modern", path="/nothing", statuses=[200, 404]) == []


def test_a_certificate_that_expires_soon_is_a_finding_while_it_is_valid(targets: dict[str, Any]) -> None:
    assert run(targets, "https", "modern", valid_days=0) == []
    assert "expires on" in run(targets, "https", "modern", valid_days=2)[0]


def test_a_foreign_certificate_is_found(targets: dict[str, Any]) -> None:
    assert "does not answer (" in run(targets, "https", "modern", server_name="other.example.com")[0]


def test_a_missing_redirect_is_found(targets: dict[str, Any]) -> None:
    assert "answers 200 to nowhere" in run(targets, "redirect", "plain")[0]


def test_a_redirect_that_leads_elsewhere_is_found(targets: dict[str, Any]) -> None:
    assert run(targets, "redirect", "plain", path="/moved:443") == []
    # The port of an entry point inside its pod, which no client can reach.
    assert f"answers 308 to https://{NAME}:8443/" in run(targets, "redirect", "plain", path="/moved:8443")[0]
    assert f"answers 308 to https://{NAME}.test/" in run(targets, "redirect", "plain", path="/moved.test")[0]


def test_an_open_port_is_found_and_a_closed_one_is_right(targets: dict[str, Any]) -> None:
    assert "is open from outside" in run(targets, "closed", "plain")[0]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert run(targets, "closed", "plain", port=port) == []
        assert (
            "Connection refused), so that closed ports cannot be verified"
            in (run(targets, "open", "plain", port=port)[0])
        )
    assert run(targets, "open", "plain") == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError("timed out"), ""),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ""),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "could not be probed ([Errno 113] No route to host)"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "could not be probed ("),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), ""),  # the control is a finding then
        (PermissionError(errno.EPERM, "Operation not permitted"), "could not be probed ("),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "could not be probed ("),
    ],
)
def test_only_a_refused_or_dropped_connection_is_a_closed_port(
    monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    probe = {"name": "s1", "address": "2001:db8::1", "port": 2379}
    found = probes.run([probe | {"kind": "closed"}], 5)[0]
    assert expected in " ".join(found) and bool(found) == bool(expected)
    assert "set verify_ipv6_enabled to false" in probes.run([probe | {"kind": "open"}], 5)[0][0]


def test_dropped_packets_are_waited_for_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(200, timeout=20)

    def drop(*_: Any, **__: Any) -> None:
        together.wait()
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", drop)
    assert probes.run([{"name": "s", "kind": "closed", "address": "::1", "port": n} for n in range(1, 201)], 5)[0] == []


class Abrupt(socketserver.BaseRequestHandler):
    """Ends every handshake by its answer, of which a client cannot know the reason."""

    answer = b""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(self.answer)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (bytes([21, 3, 3, 0, 2, 2, 70]), True),  # alert: protocol_version
        (bytes([21, 3, 3, 0, 2, 2, 40]), False),  # alert: handshake_failure
        (bytes([21, 3, 3, 0, 2, 2, 80]), False),  # alert: internal_error
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_the_alert_for_it_turns_tls_1_2_away(targets: dict[str, Any], answer: bytes, refused: bool) -> None:
    handler = type("Handler", (Abrupt,), {"answer": answer})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = run(targets, "tls_refused", "modern", port=server.server_address[1])
        server.shutdown()
    assert (found == []) == refused, found
    assert refused or "TLS 1.2 failed with another error than the alert" in found[0] or "does not answer (" in found[0]


def test_tls_1_2_with_a_foreign_certificate_is_found(targets: dict[str, Any]) -> None:
    found = run(targets, "tls_refused", "old", server_name="other.example.com")
    assert "TLS 1.2 failed with another error than the alert" in found[0]


@pytest.mark.parametrize("kind", ["https", "tls_refused", "postgres"])
def test_no_authority_is_a_finding(targets: dict[str, Any], kind: str) -> None:
    assert "no certificate authority is given" in run(targets, kind, "modern", authority=" ")[0]


@pytest.mark.parametrize("kind", sorted(probes.KINDS.keys() - {"api"}))
def test_an_empty_address_is_not_this_host(targets: dict[str, Any], kind: str) -> None:
    assert run(targets, kind, "modern", address="") == [
        "p: no address is known to probe. Correct what the inventory's warnings report."
    ]


class Postgres(socketserver.StreamRequestHandler):
    """Takes PostgreSQL's SSLRequest, and shakes hands if the server has a context."""

    def handle(self) -> None:
        assert self.rfile.read(8) == bytes([0, 0, 0, 8, 4, 210, 22, 47])
        context = self.server.context  # type: ignore[attr-defined]
        self.wfile.write(b"S" if context else b"N")
        if context:
            with contextlib.suppress(OSError):
                context.wrap_socket(self.connection, server_side=True).close()


@contextlib.contextmanager
def postgres(context: ssl.SSLContext | None) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Postgres) as server:
        server.daemon_threads = True
        server.context = context  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("newest", "changes", "expected"),
    [
        (ssl.TLSVersion.TLSv1_3, {}, ""),
        (ssl.TLSVersion.TLSv1_3, {"valid_days": 2}, "the certificate of the database on p expires on "),
        (ssl.TLSVersion.TLSv1_3, {"server_name": "other.example.com"}, "TLS verification failed ("),
        (ssl.TLSVersion.TLSv1_2, {}, "TLS verification failed ("),
        (None, {}, "TLS verification failed (the server offers no TLS)"),
    ],
)
def test_a_database_is_probed_as_its_clients_connect(
    tmp_path: Path, targets: dict[str, Any], newest: ssl.TLSVersion | None, changes: dict[str, Any], expected: str
) -> None:
    authority, path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if newest else None
    if context and newest:
        context.load_cert_chain(path)
        context.maximum_version = newest
    with postgres(context) as port:
        found = run(targets, "postgres", "modern", port=port, authority=authority, **changes)
    assert expected in " ".join(found) and bool(found) == bool(expected)


def test_a_missing_kubeconfig_is_a_finding() -> None:
    findings, _ = probes.run(
        [{"name": "api", "kind": "api", "kubeconfig": "/nowhere", "nodes": [], "version": VERSION}], 1
    )
    assert "the API named in /nowhere does not answer" in findings[0]


@pytest.mark.parametrize(
    ("nodes", "version", "finding"),
    [
        (["s1"], VERSION, None),
        ([], VERSION, "the API named in {kubeconfig} has no node to verify. Declare the servers in hosts.yml."),
        (["s1", "s2"], VERSION, "node s2 is not registered"),
        (["s1"], "v1.36.2+rke2r1", f"node s1 runs {VERSION}, not v1.36.2+rke2r1"),
    ],
)
def test_nodes_are_verified_as_the_api_lists_them(
    tmp_path: Path, nodes: list[str], version: str, finding: str | None
) -> None:
    authority, path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = serve(context)
    pem = base64.b64encode(path.read_bytes()).decode()
    values = {
        "server": f"https://127.0.0.1:{server.server_address[1]}",
        "tls-server-name": NAME,
        "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
        "client-certificate-data": pem,
        "client-key-data": pem,
    }
    (tmp_path / "kubeconfig").write_text("".join(f"  {key}: {value}\n" for key, value in values.items()))
    probe = {"name": "api", "kind": "api", "kubeconfig": tmp_path / "kubeconfig", "nodes": nodes, "version": version}
    assert probes.run([probe | {"write": False}], 5)[0] == ([finding.format(**probe)] if finding else [])
    assert "written" not in server.__dict__
    if finding is None:
        assert probes.run([probe | {"write": True}], 5)[0] == []
        folder = "/api/v1/namespaces/kube-system/configmaps"
        own = ("DELETE", f"{folder}/slipway-verify")
        assert server.__dict__["written"] == [own, ("POST", folder), own], "what it writes is gone"
        server.__dict__["full"] = True
        found = probes.run([probe | {"write": True}], 5)[0]
        assert "a write is answered 500 (etcdserver: mvcc: database space exceeded)" in found[0]
    server.shutdown()


def test_probes_of_the_ingress() -> None:
    made = verify.ingress_probes(["a.example.com", "b.example.com"], "203.0.113.1", "PEM", [200], 14)
    assert {probe["valid_days"] for probe in made if probe["kind"] == "https"} == {14}
    assert [probe["kind"] for probe in made] == ["https", "redirect", "https", "redirect", "tls_refused"]


def test_public_names_have_to_be_given() -> None:
    with pytest.raises(AnsibleFilterError, match="verify_ingress_names: the list is empty"):
        verify.ingress_probes([], "203.0.113.1", "PEM", [200], 14)


BALANCER = {"ansible_host": "203.0.113.9", "hcloud_addresses": ["203.0.113.9", "2001:db8:9::1"]}


def closed(server: dict[str, Any], *, ipv6_enabled: bool = True) -> list[dict[str, Any]]:
    hosts = verify.closed_hosts({"s1": [2379, 9345]}, {"s1": server, "lb": BALANCER}, "lb")
    return verify.closed_probes(hosts, ipv6_enabled)


def test_closed_ports_are_probed_on_every_public_address_beside_a_control() -> None:
    server = {
        "ansible_host": "203.0.113.1",
        "hcloud_addresses": ["203.0.113.1", "2001:db8:1::1"],
        "provision_private_ip": "10.0.0.1",
    }
    four = [
        {"name": "s1", "kind": "open", "address": "203.0.113.1", "port": 22},
        {"name": "s1", "kind": "closed", "address": "203.0.113.1", "port": 2379},
        {"name": "s1", "kind": "closed", "address": "203.0.113.1", "port": 9345},
    ]
    six = [
        {"name": "lb", "kind": "open", "address": "2001:db8:9::1", "port": 443},
        {"name": "s1", "kind": "closed", "address": "2001:db8:1::1", "port": 2379},
        {"name": "s1", "kind": "closed", "address": "2001:db8:1::1", "port": 9345},
    ]
    assert closed(server) == [four[0], six[0], *four[1:], *six[1:]]
    assert closed(server, ipv6_enabled=False) == four
    assert closed(server | {"ansible_host": "10.0.0.1"}) == []
    assert closed(server | {"ansible_ssh_host": "10.0.0.1"}) == []


def test_a_host_without_a_known_address_is_a_finding() -> None:
    probing = closed({"provision_private_ip": "10.0.0.1"})
    assert probing == [{"name": "s1", "kind": "open", "address": "", "port": 22}]
    assert probes.run(probing, 1)[0] == [
        "s1: no address is known to probe. Correct what the inventory's warnings report."
    ]


AGAIN = "Correct that and run playbooks/verify.yml for all hosts."
RELEASE = {"release": [f"rke2 version {VERSION} (abc)", "go version go1.26"]}


@pytest.fixture
def carried(tmp_path: Path) -> dict[str, Any]:
    pem = certificate(tmp_path)[0]
    return RELEASE | {"ingress_certificate": pem, "serving_certificate": pem, "cordoned": []}


def test_findings_name_where_they_were_seen(carried: dict[str, Any]) -> None:
    hostvars = {
        "s1": {"__verify_server_status": {"unmet": []} | carried},
        "s2": {"__verify_server_status": {"unmet": ["node a1 is not Ready"], "failed": True} | carried},
        "s3": {"__verify_server_status": {"unreachable": True}},
        "s4": {"__verify_server_status": {"failed": True, "msg": "boom"}},
        "s5": {},
        "s7": {"__verify_server_status": {"failed": True, "msg": "boom", "unmet": []} | carried},
        "s8": {"__verify_server_status": {"skipped": True}},
    }
    assert verify.server_findings(hostvars, [f"s{number}" for number in range(1, 9)], VERSION) == [
        "seen from s2, node a1 is not Ready",
        "s3 cannot be reached by SSH",
        f"s4: a check has no result (boom). {AGAIN}",
        f"s5: a check has no result (it was not part of this run). {AGAIN}",
        f"s6: a check has no result (it was not part of this run). {AGAIN}",
        f"s7: a check has no result (boom). {AGAIN}",
        f"s8: a check has no result (it was not part of this run). {AGAIN}",
    ]


def test_an_ingress_certificate_that_ends_soon_is_a_finding(carried: dict[str, Any]) -> None:
    hostvars = {name: {"__verify_server_status": {"unmet": []} | carried} for name in ("s1", "s2")}
    assert verify.server_findings(hostvars, ["s1", "s2"], VERSION) == []
    ends = datetime.now(UTC) + timedelta(days=1)
    assert verify.server_findings(hostvars, ["s1", "s2"], VERSION, 30) == [
        f"the certificate of RKE2's ingress: it expires on {ends:%Y-%m-%d}. Run playbooks/rke2.yml.",
        f"s1: the certificate of the API server: it expires on {ends:%Y-%m-%d}. Restart rke2-server on this host.",
        f"s2: the certificate of the API server: it expires on {ends:%Y-%m-%d}. Restart rke2-server on this host.",
    ]
    hostvars["s2"]["__verify_server_status"]["ingress_certificate"] = ""
    assert verify.server_findings(hostvars, ["s1", "s2"], VERSION) == [
        "the certificate of RKE2's ingress: there is none yet. Run playbooks/rke2.yml."
    ]


def test_a_cordoned_node_is_one_finding(carried: dict[str, Any]) -> None:
    hostvars = {name: {"__verify_server_status": carried | {"unmet": [], "cordoned": ["a1"]}} for name in ("s1", "s2")}
    assert verify.server_findings(hostvars, ["s1", "s2"], VERSION) == [
        "node a1 is cordoned and takes no new pods. Finish its maintenance: kubectl uncordon a1"
    ]


def test_a_platform_without_servers_is_a_finding() -> None:
    assert verify.server_findings({}, [], VERSION) == [
        "rke2_server: no server was verified. Name the servers in the inventory's hosts.yml."
    ]


def test_a_server_that_would_not_come_back_as_it_is_is_a_finding(carried: dict[str, Any]) -> None:
    older = ["rke2 version v1.36.2+rke2r1 (abc)"]
    hostvars = {
        "s1": {"__verify_server_status": carried | {"unmet": [], "release": []}},
        "s2": {"__verify_server_status": carried | {"unmet": [], "release": older}},
        "s3": {
            "__verify_server_status": {key: value for key, value in carried.items() if key != "release"} | {"unmet": []}
        },
    }
    assert verify.server_findings(hostvars, ["s1", "s2", "s3"], VERSION) == [
        "s1: rke2 --version printed nothing; a reboot would start no RKE2. Run playbooks/rke2.yml.",
        f"s2 would start another release after a reboot than {VERSION}: rke2 version v1.36.2+rke2r1 (abc)",
        "s3: rke2 --version printed nothing; a reboot would start no RKE2. Run playbooks/rke2.yml.",
    ]


def test_a_simulation_is_never_kept_quiet() -> None:
    hostvars = {
        "s1": {},
        "s2": {"__verify_server_status": {"release": ["rke2 version v1.36.3+rke2r1 (a)", "a simulation"]}},
    }
    assert verify.simulation(hostvars, ["s1", "s2"]) == "RKE2 is a simulation (a simulation)."
    assert verify.simulation({"s1": {"__verify_server_status": {"release": ["v1", "go1.26"]}}}, ["s1"]) == ""


def test_the_findings_of_hosts_name_the_host() -> None:
    hostvars = {
        "s1": {"__verify_host_drift": {"findings": ["/etc/a was changed"]}, "__verify_host_probe": {"findings": []}},
        "s2": {"__verify_host_drift": {"findings": []}, "__verify_host_probe": {"findings": ["port 22 of s1 is open"]}},
        "s3": {"__verify_host_drift": {"unreachable": True}},
        "s4": {"__verify_host_drift": {"findings": []}, "__verify_host_probe": {"failed": True, "msg": "boom"}},
    }
    assert verify.host_findings(hostvars, ["s1", "s2", "s3", "s4", "s5"]) == [
        "s1: /etc/a was changed",
        "port 22 of s1 is open",
        "s3 cannot be reached by SSH",
        f"s4: a check has no result (boom). {AGAIN}",
        f"s5: a check has no result (it was not part of this run). {AGAIN}",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket needs root")
def test_a_host_answers_a_ping() -> None:
    assert probes.run([{"name": "s1", "kind": "ping", "address": "127.0.0.1", "source": "s2"}], 1)[0] == []
    # The kernel sends nothing to the broadcast address without permission.
    found = probes.run([{"name": "s1", "kind": "ping", "address": "255.255.255.255", "source": "s2"}], 0.2)[0]
    assert len(found) == 1 and found[0].startswith("s1 (255.255.255.255) does not answer a ping from s2 (")


def test_a_bucket_that_differs_is_a_finding() -> None:
    assert verify.bucket_findings({"skipped": True}) == []
    assert verify.bucket_findings({"changed": False, "changes": []}) == []
    assert verify.bucket_findings({"changes": ["enable versioning of the bucket backup"]}) == [
        "the object storage differs from its declaration (enable versioning of the bucket backup). Find out who "
        "changed it; playbooks/object_storage.yml restores the declared state."
    ]
    assert verify.bucket_findings({"failed": True, "msg": "no answer"}) == [
        "the buckets of the object storage cannot be compared: no answer"
    ]
    assert verify.bucket_findings({}) == ["the buckets of the object storage cannot be compared: there is no result"]
