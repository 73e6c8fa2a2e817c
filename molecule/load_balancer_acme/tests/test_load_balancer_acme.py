"""An ACME server issues the certificate, and the timer renews it."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://load_balancer"]

ADDRESS = "10.95.1.10"
NAMES = ["shop.test.slipway.test", "rancher.test.slipway.test"]


def presented(host: Host, name: str) -> str:
    return host.check_output(
        f"openssl s_client -connect {ADDRESS}:443 -servername {name} </dev/null 2>/dev/null"
        " | openssl x509 -noout -serial -issuer -ext subjectAltName"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_acme_servers_certificate_is_presented(host: Host, name: str) -> None:
    shown = presented(host, name)
    assert "Pebble Intermediate CA" in shown
    assert all(f"DNS:{name}" in shown for name in NAMES)


def test_only_challenges_are_served_for_any_name(host: Host) -> None:
    host.check_output("mkdir -p /var/www/acme/.well-known/acme-challenge")
    host.check_output("echo challenge > /var/www/acme/.well-known/acme-challenge/test")
    for name in (*NAMES, "new.example"):
        command = f"curl --silent --max-time 5 -H 'Host: {name}' http://{ADDRESS}/.well-known/acme-challenge/test"
        assert host.check_output(command) == "challenge"
    assert host.run(f"curl --silent --max-time 5 -H 'Host: new.example' http://{ADDRESS}/").rc != 0


def test_the_timer_renews_and_nginx_presents_the_new_one(host: Host) -> None:
    assert host.service("certbot.timer").is_running and host.service("certbot.timer").is_enabled
    before = presented(host, NAMES[0])
    # The command of the timer's service, with a forced renewal.
    renewed = host.run(
        "env REQUESTS_CA_BUNDLE=/opt/pebble/ca.pem certbot -q renew --force-renewal --no-random-sleep-on-renew"
    )
    assert renewed.rc == 0, renewed.stderr
    after = presented(host, NAMES[0])
    assert after != before and "Pebble Intermediate CA" in after


def test_the_service_of_the_timer_trusts_the_acme_server(host: Host) -> None:
    assert "REQUESTS_CA_BUNDLE=/opt/pebble/ca.pem" in host.check_output("systemctl show certbot.service -p Environment")


def test_the_private_key_is_readable_by_root_only(host: Host) -> None:
    key = host.check_output("readlink -f /etc/letsencrypt/live/platform/privkey.pem")
    assert host.file(key).mode == 0o600
