"""The load balancer in the view of its clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.deadlines import until

testinfra_hosts = ["ansible://load_balancer"]

ADDRESS = "10.95.1.10"
NAME = "shop.apps.test.slipway.test"
CA = "/etc/nginx/certificates/platform-ca.crt"
STATUS = "http://127.0.0.1:8081/"


def curl(host: Host, url: str, *options: str, name: str = NAME) -> Any:
    arguments = ["--silent", "--show-error", "--max-time", "5", "--cacert", CA, "--include"]
    arguments += [f"--resolve {name}:{port}:{ADDRESS}" for port in (80, 443)]
    return host.run(f"curl {' '.join([*arguments, *options])} {url}")


def handshake(host: Host, *options: str, name: str = NAME) -> str:
    response = host.run(f"openssl s_client -connect {ADDRESS}:443 -servername {name} {' '.join(options)} </dev/null")
    return str(response.stdout + response.stderr)


def test_a_request_reaches_the_ingress_with_forwarded_headers(host: Host) -> None:
    response = curl(
        host,
        f"https://{NAME}/a?b=c",
        "-H 'X-Forwarded-For: 6.6.6.6'",
        "-H 'X-Forwarded-Proto: http'",
        "-H 'X-Real-IP: 6.6.6.6'",
    )
    head, _, body = response.stdout.replace("\r", "").partition("\n\n")
    head, received = head.lower(), json.loads(body)
    assert head.startswith("http/2 200"), response.stdout
    assert received["request"] == "GET /a?b=c HTTP/1.1"
    assert received["headers"]["host"] == NAME
    assert received["headers"]["x-forwarded-for"] == ADDRESS
    assert received["headers"]["x-real-ip"] == ADDRESS
    assert received["headers"]["x-forwarded-proto"] == "https"
    assert received["headers"]["x-forwarded-host"] == NAME
    assert head.count("strict-transport-security") == 1 and "max-age=63072000" in head
    assert "\nserver: nginx\n" in head + "\n", "the version is hidden"


def test_http_is_redirected_to_https_and_keeps_the_method(host: Host) -> None:
    response = curl(host, f"http://{NAME}/a?b=c", "--data x").stdout
    assert response.startswith("HTTP/1.1 308") and f"Location: https://{NAME}/a?b=c" in response


def test_a_challenge_of_cert_manager_reaches_the_ingress(host: Host) -> None:
    """Of a name that is served, and that is not one of this host's own challenges."""
    path = "/.well-known/acme-challenge/token"
    response = curl(host, f"http://{NAME}{path}").stdout.replace("\r", "")
    head, _, body = response.partition("\n\n")
    assert head.startswith("HTTP/1.1 200"), response
    received = json.loads(body)
    assert received["request"] == f"GET {path} HTTP/1.1"
    assert (received["headers"]["host"], received["headers"]["x-forwarded-proto"]) == (NAME, "http")


def test_requests_for_unknown_names_are_closed(host: Host) -> None:
    response = curl(host, "http://evil.example/", name="evil.example")
    assert response.rc in {52, 56} and response.stdout == "", "closed without a response"
    assert "unrecognized name" in handshake(host, name="evil.example").lower()
    assert curl(host, f"https://{NAME}/", "-H 'Host: evil.example'").rc != 0


def test_tls_1_3_alone_with_a_hybrid_group(host: Host) -> None:
    modern = handshake(host, "-brief")
    assert "TLSv1.3" in modern and "X25519MLKEM768" in modern, modern
    assert "alert protocol version" in handshake(host, "-tls1_2")


def test_the_certificate_is_issued_by_the_platforms_ca_and_its_key_is_private(host: Host) -> None:
    shown = host.check_output("openssl x509 -noout -text -in /etc/nginx/certificates/platform.crt")
    assert "DNS:*.apps.test.slipway.test" in shown and "TLS Web Server Authentication" in shown
    key = host.file("/etc/ssl/private/load_balancer.key")
    assert (key.mode, key.user) == (0o600, "root")
    found = host.run("grep -rl 'PRIVATE KEY' /etc/nginx /etc/slipway /var/lib/slipway").stdout
    assert found == "", f"the private key exists in /etc/ssl/private only: {found}"


def test_a_websocket_is_proxied(host: Host) -> None:
    headers = (
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==",
    )  # fmt: skip
    response = curl(host, f"https://{NAME}/", "--http1.1", "--no-buffer", *(f"-H '{header}'" for header in headers))
    assert "101 Switching Protocols" in response.stdout


@pytest.mark.parametrize("port", [6443, 9345])
def test_all_servers_share_a_port(host: Host, port: int) -> None:
    backends = {host.check_output(f"timeout 3 bash -c 'cat < /dev/tcp/{ADDRESS}/{port}'") for _ in range(8)}
    assert backends == {f"127.0.1.1 {port}", f"127.0.1.2 {port}"}


def test_a_lost_node_fails_no_request(host: Host) -> None:
    host.check_output("systemctl stop backend@2")
    try:
        for _ in range(10):
            response = curl(host, f"https://{NAME}/")
            assert '"node": "127.0.1.1"' in response.stdout, response.stdout + response.stderr
            for port in (6443, 9345):
                backend = host.check_output(f"timeout 3 bash -c 'cat < /dev/tcp/{ADDRESS}/{port}'")
                assert backend == f"127.0.1.1 {port}"
    finally:
        host.check_output("systemctl start backend@2")


def test_an_ingress_with_another_name_is_rejected(host: Host) -> None:
    """The ingress' certificate is verified: with another name in the configuration, its TLS handshake fails."""
    changed = "/run/other-name.conf"
    edits = [
        "s/proxy_ssl_name .*/proxy_ssl_name other.example;/",
        "s#certificates/#/etc/nginx/certificates/#",
        "s#/run/nginx.pid#/run/other-name.pid#",
        f"s/{ADDRESS}:/127.0.2.1:/",
        "s/:8081/:8082/",
    ]
    host.check_output(f"sed '{'; '.join(edits)}' /etc/nginx/nginx.conf > {changed}")
    host.check_output(f"systemd-run --quiet --unit=other-name nginx -c {changed} -g 'daemon off;'")
    host.check_output("for i in $(seq 40); do ss -ltn | grep -q 127.0.2.1:443 && break; sleep 0.1; done")
    try:
        response = host.run(
            f"curl --silent --max-time 5 --cacert {CA} --resolve {NAME}:443:127.0.2.1 --output /dev/null"
            f" --write-out '%{{http_code}}' https://{NAME}/"
        )
        assert response.stdout == "502"
    finally:
        host.check_output("systemctl stop other-name")


def test_the_log_holds_the_upstream(host: Host) -> None:
    curl(host, f"https://{NAME}/logged")
    last = next(
        json.loads(line)
        for line in reversed(host.check_output("tail -n 20 /var/log/nginx/access.log").splitlines())
        if "/logged" in line
    )
    assert last["status"] == 200 and last["tls"] == "TLSv1.3"
    assert last["upstream"] in {"127.0.1.1:443", "127.0.1.2:443"} and last["upstream_status"] == "200"


def test_reloads_fail_no_request(host: Host) -> None:
    script = (
        "for i in $(seq 5); do systemctl reload nginx; sleep 0.2; done & "
        "for i in $(seq 40); do curl --silent --output /dev/null --write-out '%{http_code}\\n' --max-time 5 "
        f"--cacert {CA} --resolve {NAME}:443:{ADDRESS} https://{NAME}/; done; wait"
    )
    assert set(host.check_output("bash -c %s", script).split()) == {"200"}


def test_the_installed_version_has_the_known_fixes(host: Host) -> None:
    version = host.package("nginx").version
    assert host.run(f"dpkg --compare-versions {version} ge 1.26.3-3+deb13u10").rc == 0, version


def test_the_service_restarts_after_a_crash(host: Host) -> None:
    assert host.service("nginx").is_enabled
    digest = host.check_output(f"curl --silent {STATUS}")
    host.check_output("kill -9 $(cat /run/nginx.pid) && pkill -9 -x nginx || true")
    until(lambda: str(host.run(f"curl --silent --fail {STATUS}").stdout.strip()), 10, lambda seen: seen == digest)
