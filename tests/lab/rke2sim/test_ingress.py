"""The simulated ingress: parsing of the chart's values, and the behaviour of the server."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.rke2sim.runtime import ingress_routes
from lab.rke2sim.runtime.ingress import Ingress
from lab.rke2sim.runtime.ingress_settings import IngressSettings
from lab.rke2sim.runtime.pki import issue, make_ca
from lab.rke2sim.runtime.traefik import location, parse_values

REDIRECT = [
    "--entrypoints.web.http.redirections.entrypoint.to=:443",
    "--entryPoints.web.http.redirections.entryPoint.scheme=https",
    "--entrypoints.web.http.redirections.entrypoint.permanent=true",
]


# --- the values -------------------------------------------------------------------------------------------------------


def test_without_values_tls_1_2_no_trusted_proxies_no_redirections() -> None:
    settings, ignored = parse_values({})
    assert (settings["minimum"], settings["secret"], ignored) == ("TLSv1_2", "", [])
    assert settings["entries"] == {
        entry: {"proxy": [], "forwarded": [], "redirection": None} for entry in ("web", "websecure")
    }


def test_supported_values_become_settings() -> None:
    port = {"proxyProtocol": {"trustedIPs": ["10.0.0.1"]}, "forwardedHeaders": {"trustedIPs": ["10.0.0.0/24"]}}
    settings, ignored = parse_values(
        {
            "tlsOptions": {"default": {"minVersion": "VersionTLS13"}},
            "tlsStore": {"default": {"defaultCertificate": {"secretName": "platform-ingress"}}},
            "additionalArguments": REDIRECT,
            "ports": {"web": port, "websecure": port},
        }
    )
    assert (settings["minimum"], settings["secret"], ignored) == ("TLSv1_3", "platform-ingress", [])
    assert settings["entries"]["websecure"] == {
        "proxy": ["10.0.0.1/32"],
        "forwarded": ["10.0.0.0/24"],
        "redirection": None,
    }
    assert settings["entries"]["web"]["redirection"] == {"scheme": "https", "port": "443", "permanent": True}


def test_unsupported_values_are_listed() -> None:
    _, ignored = parse_values(
        {
            "logs": {"access": {"enabled": True}},
            "ports": {"web": {"transport": {"respondingTimeouts": {"readTimeout": 60}}}},
            "additionalArguments": ["--api.insecure=true"],
        }
    )
    assert ignored == [
        "logs.access.enabled",
        "ports.web.transport.respondingTimeouts.readTimeout",
        "--api.insecure=true",
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("text", "the values are a str, not a mapping"),
        ({"ports": []}, "ports in ports.web.proxyProtocol.trustedIPs is a list, not a mapping"),
        ({"ports": {"web": {"proxyProtocol": {"trustedIPs": "10.0.0.1"}}}}, "trustedIPs is a str, not a list"),
        ({"ports": {"web": {"proxyProtocol": {"trustedIPs": ["lb"]}}}}, "'lb' does not appear to be an IPv4"),
        ({"tlsOptions": {"default": {"minVersion": "1.3"}}}, "minVersion is '1.3', not one of VersionTLS10"),
        ({"additionalArguments": REDIRECT[1:]}, "redirection of entry point web leads to ''"),
        ({"additionalArguments": [REDIRECT[0].replace(":443", "https")]}, "leads to 'https'"),
        ({"additionalArguments": [*REDIRECT, REDIRECT[1].replace("=https", "=ftp")]}, "has the scheme 'ftp'"),
        ({"additionalArguments": [*REDIRECT, REDIRECT[2].replace("=true", "=yes")]}, "permanent: 'yes'"),
    ],
)
def test_an_invalid_value_is_an_error(values: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_values(values)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("to", "host", "expected"),
    [
        (":443", "a.test", "https://a.test/x?y=1"),
        ("443", "a.test:80", "https://a.test/x?y=1"),
        # The port of an entry point is the one in the pod: clients cannot reach the target of a redirect by its name.
        ("websecure", "a.test", "https://a.test:8443/x?y=1"),
    ],
)
def test_a_redirect_uses_the_configured_port(to: str, host: str, expected: str) -> None:
    argument = f"--entrypoints.web.http.redirections.entrypoint.to={to}"
    settings, _ = parse_values({"additionalArguments": [argument]})
    assert location(settings["entries"]["web"]["redirection"], host, "/x?y=1") == expected


def test_invalid_values_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = IngressSettings(tmp_path / "ingress", "node-1", None)  # type: ignore[arg-type]
    process.folder.mkdir(parents=True)
    assert process.apply_values("tlsOptions: {default: {minVersion: VersionTLS13}}")
    before = (process.folder / "settings.json").read_text()
    for _ in range(3):
        assert not process.apply_values("tlsOptions: {default: {minVersion: VersionTLS14}}")
    assert (process.folder / "settings.json").read_text() == before
    logged = capsys.readouterr().err
    assert logged.count("is invalid, the ingress keeps its settings") == 1
    assert "VersionTLS14" in logged
    assert not process.apply_values("tlsOptions: {default: {minVersion: VersionTLS13}}\nlogs: {level: INFO}")
    assert "the simulation ignores logs.level" in capsys.readouterr().err


# --- routes -----------------------------------------------------------------------------------------------------------


def ingress(name: str, *hosts: str, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": "shop", "port": {"name": "http"}}}
    rules = [
        {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}} for host in hosts
    ]
    metadata = {"namespace": "a", "name": name, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"ingressClassName": "traefik", "rules": rules, **spec}}


SHOP: dict[str, Any] = {
    "metadata": {"namespace": "a", "name": "shop"},
    "spec": {"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]},
}


@pytest.mark.parametrize(
    ("host", "path", "port"),
    [
        ("a.test", "/", 1),
        ("A.TEST:443", "/shop", 2),
        ("a.test", "/shop/x", 2),
        ("a.test", "/shopping", 1),
        ("a.test", "/shop/cart", 3),
        ("a.test", "/shop/cart/x", 2),
        ("b.apps.test", "/", 4),
        ("c.b.apps.test", "/", 5),
        ("other.test", "/", 5),
    ],
)
def test_the_most_specific_route_is_chosen(host: str, path: str, port: int) -> None:
    routes = [
        ingress_routes.Route(name, prefix, exact, "10.43.1.1", number)
        for name, prefix, exact, number in (
            ("", "/", False, 5),
            ("a.test", "/", False, 1),
            ("a.test", "/shop/", False, 2),
            ("a.test", "/shop/cart", True, 3),
            ("*.apps.test", "/", False, 4),
        )
    ]
    found = ingress_routes.find(routes, host, path)
    assert found is not None and found.port == port


def test_no_route_matches_another_host() -> None:
    routes = ingress_routes.table([ingress("shop", "a.test")], [SHOP])
    assert ingress_routes.find(routes, "b.test", "/") is None


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ([SHOP], ("10.43.1.1", 80)),
        ([], ("", 0)),
        ([{**SHOP, "spec": {**SHOP["spec"], "clusterIP": "None"}}], ("", 0)),
        ([{**SHOP, "spec": {"type": "ExternalName", "externalName": "c.test"}}], ("", 0)),
        ([{**SHOP, "metadata": {"namespace": "b", "name": "shop"}}], ("", 0)),
    ],
)
def test_a_route_leads_to_the_service_of_its_namespace(service: list[Any], address: tuple[str, int]) -> None:
    (route,) = ingress_routes.table([ingress("shop", "a.test")], service)
    assert (route.address, route.port) == address


def test_a_default_backend_serves_every_name() -> None:
    backend = {"service": {"name": "shop", "port": {"number": 9090}}}
    (route,) = ingress_routes.table([ingress("shop", defaultBackend=backend)], [SHOP])
    assert route == ingress_routes.Route("", "/", False, "10.43.1.1", 9090)


def test_ingresses_of_another_class_are_left_out() -> None:
    other = ingress("other", "a.test", ingressClassName="nginx")
    legacy = ingress("legacy", "a.test", ingressClassName=None)
    legacy["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "nginx"}
    unset = ingress("unset", "a.test", ingressClassName=None)
    chosen = ingress_routes.selected([other, legacy, unset, ingress("own", "a.test", created="2025-01-01T00:00:00Z")])
    assert [item["metadata"]["name"] for item in chosen] == ["own", "unset"]


def test_the_certificate_of_the_oldest_ingress_counts() -> None:
    def tls(name: str) -> list[dict[str, Any]]:
        return [{"hosts": ["a.test"], "secretName": name}, {"hosts": ["b.test"]}]

    chosen = [ingress("first", tls=tls("old")), ingress("second", tls=tls("new"))]
    assert ingress_routes.certificates(chosen) == {"a.test": ("a", "old")}


# --- the process ------------------------------------------------------------------------------------------------------

Start = Callable[[dict[str, Any]], dict[str, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the ingress with these values on loopback; returns the ports by entry point."""
    make_ca(tmp_path / "ca.crt", tmp_path / "ca.key", "ca")
    pair = tmp_path / "ca.crt", tmp_path / "ca.key"
    issue(pair, tmp_path / "tls.crt", tmp_path / "tls.key", "ingress", names=["a.test"], usage="serverAuth")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listeners = {entry: socket.create_server(("127.0.0.1", 0)) for entry in ("web", "websecure")}
    serving: list[asyncio.Task[None]] = []

    async def end() -> None:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        serving.clear()

    async def serve(ingress: Ingress) -> None:
        await end()
        serving.extend(asyncio.create_task(ingress.serve(listener, entry)) for entry, listener in listeners.items())

    def start_ingress(values: dict[str, Any]) -> dict[str, int]:
        settings, _ = parse_values(values)
        (tmp_path / "settings.json").write_text(json.dumps({**settings, "node": "node-1"}))
        asyncio.run_coroutine_threadsafe(serve(Ingress(tmp_path)), loop).result(10)
        return {entry: int(listener.getsockname()[1]) for entry, listener in listeners.items()}

    yield start_ingress
    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    for listener in listeners.values():
        listener.close()


def get(
    port: int, *, proxy: str = "", context: ssl.SSLContext | None = None, headers: dict[str, str] | None = None
) -> http.client.HTTPResponse:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(proxy.encode())
        connection = context.wrap_socket(raw, server_hostname="a.test") if context else raw
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        connection.sendall(f"GET /x HTTP/1.1\r\nHost: a.test\r\n{lines}Connection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        return answer


def content(answer: http.client.HTTPResponse) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.text)  # type: ignore[attr-defined]
    return value


def trust(folder: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.maximum_version = newest
    return context


def test_the_minimum_tls_version_is_that_of_the_values(start: Start, tmp_path: Path) -> None:
    port = start({"tlsOptions": {"default": {"minVersion": "VersionTLS13"}}})["websecure"]
    assert content(get(port, context=trust(tmp_path)))["node"] == "node-1"
    with pytest.raises(ssl.SSLError):
        get(port, context=trust(tmp_path, ssl.TLSVersion.TLSv1_2))


def test_tls_1_2_is_served_unless_the_values_forbid_it(start: Start, tmp_path: Path) -> None:
    port = start({})["websecure"]
    assert get(port, context=trust(tmp_path, ssl.TLSVersion.TLSv1_2)).status == 200


def test_plain_http_is_redirected_and_https_is_not(start: Start, tmp_path: Path) -> None:
    ports = start({"additionalArguments": REDIRECT})
    answer = get(ports["web"])
    assert (answer.status, answer.getheader("Location")) == (301, "https://a.test/x")
    assert get(ports["websecure"], context=trust(tmp_path)).status == 200


def test_the_client_address_is_that_of_a_trusted_proxy_line(start: Start) -> None:
    port = start({"ports": {"web": {"proxyProtocol": {"trustedIPs": ["127.0.0.1"]}}}})["web"]
    answer = get(port, proxy="PROXY TCP4 198.51.100.7 127.0.0.1 40000 80\r\n")
    assert content(answer)["remote"] == "198.51.100.7"


def test_forwarded_headers_are_used_only_from_a_trusted_proxy(start: Start) -> None:
    claims = {"X-Forwarded-For": "198.51.100.7", "X-Request-ID": "7"}
    ports = start({"ports": {"web": {"forwardedHeaders": {"trustedIPs": ["127.0.0.0/8"]}}}})
    assert content(get(ports["web"], headers=claims))["headers"]["x-forwarded-for"] == "198.51.100.7"
    port = start({})["web"]
    headers = content(get(port, headers=claims))["headers"]
    assert "x-forwarded-for" not in headers
    assert headers["x-request-id"] == "7"


# --- forwarding -------------------------------------------------------------------------------------------------------


class Echo(http.server.BaseHTTPRequestHandler):
    """An application that answers the request, and takes an upgraded connection over."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        self.wfile.write(json.dumps({"headers": dict(self.headers), "body": body.decode(), "path": self.path}).encode())

    def do_GET(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "echo")
        self.end_headers()
        self.wfile.write(self.rfile.readline().upper())


@pytest.fixture
def application() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def add_routes(folder: Path, port: int, certificates: dict[str, str] | None = None) -> None:
    route = {"host": "a.test", "path": "/", "exact": False, "address": "127.0.0.1", "port": port}
    (folder / "routes.json").write_text(json.dumps({"routes": [route], "certificates": certificates or {}}))


def test_a_request_reaches_the_service_with_the_client_s_address(
    start: Start, application: int, tmp_path: Path
) -> None:
    add_routes(tmp_path, application)
    ports = start({"ports": {"websecure": {"forwardedHeaders": {"trustedIPs": ["127.0.0.1"]}}}})
    connection = http.client.HTTPSConnection("127.0.0.1", ports["websecure"], context=trust(tmp_path), timeout=5)
    connection.sock = trust(tmp_path).wrap_socket(
        socket.create_connection(("127.0.0.1", ports["websecure"])), server_hostname="a.test"
    )
    connection.request(
        "POST", "/x?y=1", b"ping", {"Host": "a.test", "X-Forwarded-For": "198.51.100.7", "TE": "trailers"}
    )
    answer = connection.getresponse()
    seen = json.loads(answer.read())
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert (answer.status, seen["body"], seen["path"]) == (201, "ping", "/x?y=1")
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert headers["x-forwarded-for"] == "198.51.100.7, 127.0.0.1"
    assert (headers["host"], headers["x-forwarded-proto"], headers["x-real-ip"]) == ("a.test", "https", "127.0.0.1")
    assert "te" not in headers


def test_ping_is_the_application_s_where_a_route_has_it(start: Start, application: int, tmp_path: Path) -> None:
    add_routes(tmp_path, application)
    port = start({})["web"]
    answers = {}
    for host in ("a.test", "b.test"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/ping", b"", {"Host": host})
        answer = connection.getresponse()
        answers[host] = (answer.status, answer.read() == b"OK")
    assert answers == {"a.test": (201, False), "b.test": (200, True)}


def test_an_upgraded_connection_is_copied_in_both_directions(start: Start, application: int, tmp_path: Path) -> None:
    add_routes(tmp_path, application)
    port = start({})["web"]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello\n")
        answer = b""
        while data := raw.recv(1000):
            answer += data
    assert answer.startswith(b"HTTP/1.0 101 ") and answer.endswith(b"\r\n\r\nHELLO\n")


def test_a_service_that_does_not_answer_is_a_bad_gateway(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    add_routes(tmp_path, port)
    assert get(start({})["web"]).status == 502


def test_a_missing_service_is_unavailable(start: Start, tmp_path: Path) -> None:
    route = {"host": "a.test", "path": "/", "exact": False, "address": "", "port": 0}
    (tmp_path / "routes.json").write_text(json.dumps({"routes": [route], "certificates": {}}))
    assert get(start({})["web"]).status == 503


def test_the_certificate_of_an_ingress_is_served_for_its_host(start: Start, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    pair = tmp_path / "ca.crt", tmp_path / "ca.key"
    issue(pair, own / "tls.crt", own / "tls.key", "own", names=["a.test", "own.test"], usage="serverAuth")
    add_routes(tmp_path, 1, {"a.test": str(own)})
    port = start({})["websecure"]

    def names(host: str) -> list[str]:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            context = trust(tmp_path)
            context.check_hostname = False
            certificate = context.wrap_socket(raw, server_hostname=host).getpeercert() or {}
        return [str(name[1]) for name in certificate["subjectAltName"]]

    assert names("a.test") == ["a.test", "own.test"]
    assert names("b.test") == ["a.test"]
