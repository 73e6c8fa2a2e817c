"""Certificates and kubeconfigs on the controller, and the filters over them."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter import rke2
from ansible_collections.slipway.platform.plugins.module_utils import rke2_documents
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NAMES = ["ingress.example.com", "*.apps.example.com"]


class Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self._sign(self.name, self.key, NOW + timedelta(days=3650), [])

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime, names: list[str]) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(end)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, names: list[str], days: int) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        return self._sign(subject, ec.generate_private_key(ec.SECP256R1()), NOW + timedelta(days=days), names)


AUTHORITY = Authority("platform")


def kubeconfig(days: int = 365, **cluster: Any) -> str:
    def encoded(pem: str) -> str:
        return base64.b64encode(pem.encode()).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "clusters": [
                {
                    "name": "default",
                    "cluster": {
                        "server": "https://127.0.0.1:6443",
                        "certificate-authority-data": encoded(AUTHORITY.pem),
                        **cluster,
                    },
                }
            ],
            "users": [
                {
                    "name": "default",
                    "user": {"client-certificate-data": encoded(AUTHORITY.issue([], days)), "client-key-data": "a2V5"},
                }
            ],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
            "current-context": "default",
        }
    )


DIGEST = hashlib.sha256(AUTHORITY.pem.strip().encode()).hexdigest()
WANT: dict[str, Any] = {
    "authority_digest": DIGEST,
    "server": "https://lb:6443",
    "tls_name": "api.test",
    "name": "prod",
    "days": 60,
    "now": NOW,
}


def test_a_kubeconfig_gets_the_load_balancers_address() -> None:
    text = rke2_documents.rewrite_kubeconfig(kubeconfig(), server="https://lb:6443", tls_name="api.test", name="prod")
    document = yaml.safe_load(text)
    assert document["clusters"][0]["cluster"]["server"] == "https://lb:6443"
    assert document["clusters"][0]["cluster"]["tls-server-name"] == "api.test"
    assert document["current-context"] == document["users"][0]["name"] == document["contexts"][0]["name"] == "prod"
    assert rke2_documents.kubeconfig_due(text, **WANT) == ""
    assert rke2.kubeconfig(text, "https://lb:6443", "api.test", "prod") == text


def test_a_server_that_no_client_could_use_never_replaces_a_kubeconfig() -> None:
    message = "rke2_kubeconfig_server: 'https://2001:db8::1:6443' is not the URL of a server"
    with pytest.raises(AnsibleFilterError, match=re.escape(message)):
        rke2.kubeconfig(kubeconfig(), "https://2001:db8::1:6443", "api.test", "prod")


LOCAL = {"server": "https://127.0.0.1:6443", "name": "default"}
NAMED = {"tls-server-name": "api.test"}


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("", {}, "there is none yet"),
        ("[]", {}, "it cannot be read"),
        (kubeconfig(), {"authority_digest": "other"}, "it belongs to another cluster"),
        (kubeconfig(), {}, "address or name changed"),
        (kubeconfig(), LOCAL, "address or name changed"),
        (kubeconfig(30, **NAMED), LOCAL, "its certificate expires on 2026-12-21"),
    ],
)
def test_when_a_kubeconfig_is_fetched_again(text: str, changes: dict[str, Any], reason: str) -> None:
    assert rke2_documents.kubeconfig_due(text, **(WANT | changes)) == reason


def test_an_input_that_is_no_kubeconfig() -> None:
    with pytest.raises(AnsibleFilterError, match="is not RKE2's kubeconfig"):
        rke2.kubeconfig("{}", "https://lb:6443", "api.test", "prod")


def test_empty_values_are_removed_and_false_is_not() -> None:
    values = {"a": "", "b": [], "c": {}, "d": None, "e": False, "f": 0, "g": "x"}
    assert rke2.without_empty(values) == {"e": False, "f": 0, "g": "x"}


def states(*digests: str | None) -> dict[str, Any]:
    valid = AUTHORITY.issue(NAMES, 3650)
    return {
        f"s{number}": {"ingress_certificate": {"pem": valid, "digest": digest} if digest else None}
        for number, digest in enumerate(digests, 1)
    }


@pytest.mark.parametrize(
    ("digests", "issue_needed", "distribution_needed", "source"),
    [
        (("x", "x", "x"), False, False, "s1"),
        ((None, None, None), True, True, "s1"),
        ((None, "x", "x"), False, True, "s2"),
    ],
)
def test_one_certificate_for_all_servers(
    digests: tuple[str | None, ...], issue_needed: bool, distribution_needed: bool, source: str
) -> None:
    found = rke2.certificate(states(*digests), ["s1", "s2", "s3"], AUTHORITY.pem, NAMES, 60)
    assert (found["issue_needed"], found["distribution_needed"], found["source"]) == (
        issue_needed,
        distribution_needed,
        source,
    )


def test_digests_carry_no_content() -> None:
    files = rke2.digests([{"path": "/x", "mode": "0600", "restart": True, "content": "token: secret"}])
    assert "secret" not in str(files)
    assert files[0]["sha256"] == hashlib.sha256(b"token: secret").hexdigest()
