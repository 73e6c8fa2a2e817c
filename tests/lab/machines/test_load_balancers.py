"""Load balancers: what HAProxy is told, and real requests through it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from lab import pki
from lab.machines import haproxy, namespaces
from lab.machines.base import AttachmentSpec, HealthCheckSpec, LoadBalancerSpec, ServiceSpec, TargetHealth
from lab.machines.haproxy import Process
from lab.machines.load_balancers import SAMPLE_SECONDS
from tests.lab.machines.conftest import Lab
from tests.support.deadlines import until

ID, PRIVATE_IP = 60, "10.40.1.60"
ATTACHMENT = AttachmentSpec(ID, 50, PRIVATE_IP, "86:00:00:00:00:60", "enp7s0")
TCP = HealthCheckSpec("tcp", 8080, 3, 2, 1)
HTTP = HealthCheckSpec("http", 8080, 3, 2, 1, path="/up", status_codes=("2??",))
ECHO = ServiceSpec("tcp", 7, 8080, False, TCP)
HEALTHY = TargetHealth("healthy")

BACKEND = """\
import http.server, json, socket, socketserver, threading

class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"name": socket.gethostname(), "headers": dict(self.headers), "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class First(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())

http.server.ThreadingHTTPServer.allow_reuse_address = True
threading.Thread(target=http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever).start()
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 8081), First).serve_forever()
"""


def spec(**changes: object) -> LoadBalancerSpec:
    values: dict[str, object] = {
        "load_balancer_id": ID, "name": "lb", "public_mac": "96:00:00:00:00:60", "ipv4": "198.18.0.60",
        "ipv6_network": "2001:db8:0:60::/64", "attachment": None, "algorithm": "round_robin", "max_connections": 20_000,
        "services": (), "targets": ("198.18.0.11", "2001:db8:0:2::1"),
    }  # fmt: skip
    return LoadBalancerSpec(**{**values, **changes})  # type: ignore[arg-type]


# The configuration


def rendered(service: ServiceSpec, **changes: object) -> list[str]:
    return [line.strip() for line in haproxy.render(spec(services=(service,), **changes), Path("/state")).splitlines()]


def test_tcp_service() -> None:
    lines = rendered(dataclasses.replace(ECHO, proxyprotocol=True), algorithm="least_connections")
    check = "check port 8080 inter 3s fall 1 rise 1 send-proxy check-send-proxy"
    for line in (
        "mode tcp", "bind 0.0.0.0:7", "bind [::]:7 v6only", "balance leastconn",
        f"server 198.18.0.11 198.18.0.11:8080 {check}",
        f"server 2001:db8:0:2::1 [2001:db8:0:2::1]:8080 {check}",
    ):  # fmt: skip
        assert line in lines
    other_port = dataclasses.replace(TCP, port=9000)
    assert "check-send-proxy" not in "".join(rendered(dataclasses.replace(ECHO, health_check=other_port)))


def test_http_health_check() -> None:
    check = HealthCheckSpec(
        "http", 8443, 15, 10, 3, "it's.example.com", "/a?b='c'", 'say "hi" # now', ("2??", "4*"), tls=True
    )
    lines = rendered(ServiceSpec("http", 80, 8080, False, check))
    for line in (
        "option httpchk",
        r"http-check connect port 8443 ssl sni 'it'\''s.example.com'",
        r"http-check send meth GET uri '/a?b='\''c'\''' ver HTTP/1.1 hdr Host 'it'\''s.example.com'",
        "http-check expect rstatus '^(2..|4.*)$'",
        "http-check expect string 'say \"hi\" # now'",
    ):
        assert line in lines


def test_https_service() -> None:
    service = ServiceSpec("https", 8443, 80, False, HTTP, "STICKY", 60, 30, ("PEM",), redirect_http=True)
    lines = rendered(service)
    bundle = haproxy.bundle_name("PEM")
    assert f"bind 0.0.0.0:8443 ssl crt /state/{bundle} alpn h2,http/1.1" in lines
    assert "cookie STICKY insert indirect nocache maxlife 60s" in lines
    assert "timeout client 30s" in lines and "timeout server 30s" in lines
    assert any("redirect code 301 location https://%[req.hdr(host),field(1,:)]:8443%" in line for line in lines)
    passed = rendered(dataclasses.replace(service, certificates=(), cookie_name=None, redirect_http=False))
    assert "bind 0.0.0.0:8443" in passed and "mode http" not in passed


@pytest.mark.parametrize(
    ("status", "check_status", "code", "expected"),
    [
        ("UP", "INI", "", TargetHealth("unknown")),
        ("UP", "", "", TargetHealth("unknown")),
        ("UP", "* L7OK", "200", TargetHealth("healthy")),
        ("UP 1/3", "L4OK", "", TargetHealth("healthy")),
        ("DOWN", "L7STS", "503", TargetHealth("unhealthy", "unexpected_http_status", 503)),
        ("DOWN", "L4CON", "", TargetHealth("unhealthy", "layer4_no_connection")),
        ("DOWN", "* L4TOUT", "", TargetHealth("unhealthy", "layer4_timeout")),
        ("DOWN", "SOCKERR", "", TargetHealth("unhealthy", "unspecified")),
    ],
)
def test_health_of_a_target(status: str, check_status: str, code: str, expected: TargetHealth) -> None:
    row = {"status": status, "check_status": check_status, "check_code": code}
    assert haproxy.target_health(row) == expected


# Real requests


@pytest.fixture
def backends(lab: Lab) -> Iterator[None]:
    """A web server on 8080, and on 8081 a server that sends back its first line, on web and db."""
    for server_id in (1, 2):
        lab.output(server_id, f"cat > /root/backend.py <<'END'\n{BACKEND}END")
        lab.output(server_id, "systemd-run --quiet --collect --unit=backend python3 /root/backend.py")
    yield
    for server_id in (1, 2):
        lab.run(server_id, "systemctl stop backend")


@pytest.fixture
def balancer(lab: Lab, backends: None) -> Iterator[Callable[..., LoadBalancerSpec]]:
    """Serves the given services with web and db as targets, and waits until both are healthy."""

    def serve(*services: ServiceSpec, **changes: object) -> LoadBalancerSpec:
        values: dict[str, object] = {
            "ipv4": str(lab.settings.public_range[ID]),
            "ipv6_network": str(lab.settings.public_range_v6[ID << 64]) + "/64",
            "targets": tuple(lab.specs[server_id].ipv4 for server_id in (1, 2)),
        }
        wanted = spec(services=services, **{**values, **changes})
        lab.machines.apply_load_balancer(wanted)
        wait_for_health(lab, wanted, HEALTHY)
        return wanted

    yield serve
    lab.machines.delete_load_balancer(ID)


def wait_for_health(lab: Lab, wanted: LoadBalancerSpec, *expected: TargetHealth) -> None:
    """Wait for the health of each target, or of all when one is given."""
    states = dict(zip(wanted.targets, expected * len(wanted.targets), strict=False))
    health = {(service.listen_port, target): states[target] for service in wanted.services for target in wanted.targets}
    until(lambda: lab.machines.load_balancer_health(ID), 20, lambda found: found == health, pause=0.1)


def line(address: str | None, port: int, text: str = "hello\n") -> str:
    """The first line of the answer over TCP."""
    with socket.create_connection((address, port), 5) as connection:
        connection.sendall(text.encode())
        return connection.makefile().readline().strip()


def fetch(url: str, trust: ssl.SSLContext | bool = True, **headers: str) -> httpx.Response:
    """A request on a connection of its own; with a host header, TLS is for that name."""
    extensions = {"sni_hostname": headers["Host"]} if "Host" in headers else {}
    with httpx.Client(verify=trust, timeout=5) as client:
        return client.get(url, headers=headers, extensions=extensions)


def names(url: str, count: int = 6, trust: ssl.SSLContext | bool = True, **headers: str) -> set[str]:
    """The hosts that answer requests."""
    return {fetch(url, trust, **headers).json()["name"] for _ in range(count)}


def process(lab: Lab) -> Process:
    namespace = namespaces.path(lab.settings.host_namespace(ID))
    return Process(lab.settings.state_dir / f"machines/load_balancers/{ID}", namespace)


@pytest.mark.real
def test_tcp_and_health(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    wanted = balancer(ECHO, dataclasses.replace(ECHO, protocol="http", listen_port=80, health_check=HTTP))
    for url in (f"http://{wanted.ipv4}:7/", f"http://{wanted.ipv4}/", f"http://[{wanted.ipv6_network[:-3]}1]/"):  # type: ignore[index]
        assert names(url) == {"web", "db"}
    lab.output(2, "systemctl stop backend")
    wait_for_health(lab, wanted, HEALTHY, TargetHealth("unhealthy", "layer4_no_connection"))
    assert names(f"http://{wanted.ipv4}:7/") == {"web"}
    lab.output(2, "systemd-run --quiet --collect --unit=backend python3 /root/backend.py")
    wait_for_health(lab, wanted, HEALTHY)
    fewer = dataclasses.replace(wanted, targets=wanted.targets[:1])
    lab.machines.apply_load_balancer(fewer)
    assert names(f"http://{wanted.ipv4}:7/") == {"web"}


@pytest.mark.real
def test_proxy_protocol(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    service = ServiceSpec("tcp", 7, 8081, True, HealthCheckSpec("tcp", 8081, 3, 2, 1))
    wanted = balancer(service)
    assert line(wanted.ipv4, 7).startswith(f"PROXY TCP4 {lab.settings.machine_address} {wanted.ipv4} ")
    balancer(dataclasses.replace(service, proxyprotocol=False))
    assert line(wanted.ipv4, 7) == "hello"


@pytest.mark.real
def test_https_with_redirect_and_sticky_sessions(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    chain, key = pki.issue_for_domains(lab.settings.pki_dir, lab.settings.name, ["www.example.com"])
    wanted = balancer(ServiceSpec("https", 443, 8080, False, HTTP, "KEKS", 60, 30, (chain + key,), redirect_http=True))
    trust = ssl.create_default_context(cafile=lab.settings.pki_dir / "ca.pem")
    url, host = f"https://{wanted.ipv4}", "www.example.com"
    answer = fetch(f"{url}/path", trust, Host=host)
    shown, sticky = answer.json(), answer.cookies["KEKS"]
    headers = {name.lower(): value for name, value in shown["headers"].items()}
    assert shown["path"] == "/path"
    assert headers["x-forwarded-for"] == str(lab.settings.machine_address)
    assert (headers["x-forwarded-proto"], headers["x-forwarded-port"]) == ("https", "443")
    assert names(url, trust=trust, Host=host) == {"web", "db"}
    assert names(url, trust=trust, Host=host, Cookie=f"KEKS={sticky}") == {shown["name"]}
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(url)
    redirect = fetch(f"http://{wanted.ipv4}/path?a=b", Host=host)
    assert (redirect.status_code, redirect.headers["location"]) == (301, "https://www.example.com/path?a=b")
    [bundle] = process(lab).folder.glob("*.pem")
    assert bundle.stat().st_mode & 0o777 == 0o600


@pytest.mark.real
def test_private_network(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    private = {"attachment": ATTACHMENT, "targets": ("10.40.1.10", "10.40.1.11")}
    wanted = balancer(ECHO, **private)
    curl = f"curl --silent --fail --max-time 5 http://{PRIVATE_IP}:7/"
    assert names(f"http://{wanted.ipv4}:7/") == {"web", "db"}
    assert json.loads(lab.output(1, curl))["name"] in ("web", "db")
    assert not lab.succeeds(3, curl), "another network has the same range"
    lab.machines.apply_load_balancer(dataclasses.replace(wanted, ipv4=None, ipv6_network=None))
    assert lab.succeeds(1, curl)
    with pytest.raises(OSError):
        line(wanted.ipv4, 7)
    lab.machines.apply_load_balancer(wanted)
    assert names(f"http://{wanted.ipv4}:7/") == {"web", "db"}
    lab.machines.apply_load_balancer(dataclasses.replace(wanted, attachment=None))
    assert not lab.succeeds(1, curl)


@pytest.mark.real
def test_connections_outlive_a_change(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    """Also the health is known at once after it."""
    service = ServiceSpec("tcp", 7, 8081, False, HealthCheckSpec("tcp", 8081, 60, 2, 1))
    wanted = balancer(service)
    [before] = process(lab).pids()
    with socket.create_connection((wanted.ipv4, 7), 5) as connection:
        lab.machines.apply_load_balancer(wanted)
        assert process(lab).pids() == [before], "an unchanged specification changes nothing"
        lab.machines.apply_load_balancer(dataclasses.replace(wanted, algorithm="least_connections"))
        health = lab.machines.load_balancer_health(ID)
        assert len(process(lab).pids()) == 2 and set(health.values()) == {HEALTHY}
        connection.sendall(b"still here\n")
        assert connection.makefile().readline() == "still here\n"
    until(lambda: process(lab).pids(), 10, lambda pids: len(pids) == 1 and pids != [before], pause=0.05)


@pytest.mark.real
def test_reconcile(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    wanted = balancer(ECHO, attachment=ATTACHMENT)
    desired = lab.desired(load_balancers=(wanted,))
    before = process(lab).pids()
    lab.machines.close()
    assert names(f"http://{wanted.ipv4}:7/") == {"web", "db"}, "it serves while the daemon is stopped"
    lab.machines = lab.fresh_machines()
    assert lab.machines.reconcile(desired) == []
    assert process(lab).pids() == before and names(f"http://{wanted.ipv4}:7/") == {"web", "db"}

    os.kill(before[0], signal.SIGKILL)
    until(lambda: process(lab).pids(), 5, lambda pids: not pids, pause=0.02)
    assert lab.machines.reconcile(desired) == ["loaded the configuration of load balancer lb"]
    subprocess.run(["ip", "netns", "delete", lab.settings.host_namespace(ID)], check=True)
    assert "created the namespace of load balancer lb" in lab.machines.reconcile(desired)
    wait_for_health(lab, wanted, HEALTHY)
    assert names(f"http://{wanted.ipv4}:7/") == {"web", "db"}
    assert lab.succeeds(1, f"curl --silent --fail --max-time 5 http://{PRIVATE_IP}:7/")
    assert lab.machines.reconcile(desired) == []

    assert lab.machines.reconcile(lab.desired()) == [f"removed undeclared load balancer {ID}"]
    assert process(lab).pids() == [] and not process(lab).folder.exists()
    assert lab.machines.load_balancer_health(ID) == {}


@pytest.mark.real
def test_samples(lab: Lab, balancer: Callable[..., LoadBalancerSpec]) -> None:
    wanted = balancer(ECHO)
    names(f"http://{wanted.ipv4}:7/", 3)
    sample = process(lab).sample()
    assert sample and sample.connections >= 3 and sample.bytes_in > 0 and sample.bytes_out > sample.bytes_in
    until(lambda: lab.machines.load_balancer_samples(ID), 2 * SAMPLE_SECONDS)
