"""The ingress terminates TLS and reads the client's address from the PROXY protocol header."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://load_balancer"]

ADDRESS = "10.95.1.10"
NAME = "ingress.test.slipway.test"


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_ingress_sees_the_client_and_its_own_tls(host: Host, scheme: str, port: int) -> None:
    response = host.check_output(
        f"curl --silent --show-error --max-time 5 --cacert /etc/ssl/certs/ca-certificates.crt"
        f" --resolve {NAME}:{port}:{ADDRESS} {scheme}://{NAME}/x"
        if scheme == "http"
        else f"curl --silent --show-error --max-time 5 --insecure --resolve {NAME}:{port}:{ADDRESS} {scheme}://{NAME}/x"
    )
    received = json.loads(response)
    assert received["proxy"].split()[:3] == ["PROXY", "TCP4", ADDRESS]
    assert "x-forwarded-for" not in received["headers"]


def test_the_ingress_presents_its_own_certificate(host: Host) -> None:
    shown = host.check_output(
        f"openssl s_client -connect {ADDRESS}:443 -servername {NAME} -showcerts </dev/null 2>/dev/null"
    )
    own = host.file("/opt/backend/certificate.pem").content_string.strip()
    assert own in shown


def test_no_certificate_is_left_on_the_load_balancer(host: Host) -> None:
    assert host.file("/etc/nginx/certificates").listdir() == []


def test_the_api_gets_no_proxy_header(host: Host) -> None:
    assert host.check_output(f"timeout 10 bash -c 'cat < /dev/tcp/{ADDRESS}/6443'").endswith(" 6443")
