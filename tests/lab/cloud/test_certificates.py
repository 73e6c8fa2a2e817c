from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from hcloud import Client

from lab import pki
from tests.lab.cloud.conftest import Api, Lab

NAMES = ["www.example.com", "example.com"]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key from outside of the lab."""
    return pki.issue_for_domains(tmp_path_factory.mktemp("authority"), "other", NAMES)


def test_uploaded_certificate(api: Api, pair: tuple[str, str]) -> None:
    chain, key = pair
    made = api.post("/certificates", {"name": "web", "certificate": chain, "private_key": key, "labels": {"a": "b"}})
    shown = made["certificate"]
    assert made["action"] is None and shown["status"] is None and shown["used_by"] == []
    assert (shown["type"], shown["certificate"], shown["domain_names"]) == ("uploaded", chain, NAMES)
    assert shown["not_valid_before"] < shown["created"] < shown["not_valid_after"]
    assert len(shown["fingerprint"].split(":")) == 32
    assert "private_key" not in shown
    assert api.get("/certificates", type="uploaded")["certificates"] == [shown]
    assert api.get("/certificates", type="managed")["certificates"] == []
    assert api.message("POST", f"/certificates/{shown['id']}/actions/retry") == "certificate not retryable"
    api.put(f"/certificates/{shown['id']}", {"name": "other", "labels": {}})
    assert api.get("/certificates", name="other")["certificates"][0]["labels"] == {}
    api.delete(f"/certificates/{shown['id']}")
    assert api.code("GET", f"/certificates/{shown['id']}") == "not_found"


def test_invalid_certificates(api: Api, lab: Lab, pair: tuple[str, str], tmp_path: Path) -> None:
    chain, key = pair
    other_chain, other_key = pki.issue_for_domains(tmp_path, "third", ["other.example.com"])
    for wrong in (
        {},
        {"certificate": chain},
        {"certificate": chain, "private_key": other_key},
        {"certificate": "x", "private_key": key},
        {"certificate": chain, "private_key": "x"},
        {"certificate": chain + other_chain, "private_key": key},
        {"type": "managed"},
        {"type": "managed", "domain_names": ["not a name"]},
        {"type": "acme", "domain_names": NAMES},
    ):
        assert api.code("POST", "/certificates", {"name": "web", **wrong}) == "invalid_input", wrong
    assert api.get("/certificates")["certificates"] == []
    api.post("/certificates", {"name": "web", "certificate": chain, "private_key": key})
    assert api.code("POST", "/certificates", {"name": "web", "certificate": chain, "private_key": key}) == (
        "uniqueness_error"
    )


def test_managed_certificate_is_issued_by_the_authority_of_the_lab(lab: Lab, client: Client) -> None:
    made = client.certificates.create_managed(name="web", domain_names=NAMES)
    made.action.wait_until_finished()
    certificate = client.certificates.get_by_name("web")
    assert made.action.command == "create_certificate" and certificate.domain_names == NAMES
    assert (certificate.status.issuance, certificate.status.renewal) == ("completed", "scheduled")
    leaf = x509.load_pem_x509_certificate(certificate.certificate.encode())
    authority = x509.load_pem_x509_certificate((lab.cloud.settings.pki_dir / "ca.pem").read_bytes())
    leaf.verify_directly_issued_by(authority)
    assert "Slipway lab test" in leaf.issuer.rfc4514_string()
    assert ssl.PEM_cert_to_DER_cert(certificate.certificate)


def test_a_failed_issuance_is_retried(lab: Lab) -> None:
    fault = {"kind": "action_error", "command": "create_certificate", "count": 1}
    lab.api.post(f"{lab.url}/_lab/faults", fault)
    id = lab.api.post("/certificates", {"name": "web", "type": "managed", "domain_names": NAMES})["certificate"]["id"]
    lab.wait_idle()
    shown = lab.api.get(f"/certificates/{id}")["certificate"]
    assert shown["status"]["issuance"] == "failed" and shown["status"]["error"]["code"] == "action_failed"
    assert (shown["certificate"], shown["status"]["renewal"]) == (None, "unavailable")
    assert lab.api.post(f"/certificates/{id}/actions/retry")["action"]["command"] == "issue_certificate"
    lab.wait_idle()
    shown = lab.api.get(f"/certificates/{id}")["certificate"]
    assert shown["status"] == {"issuance": "completed", "renewal": "scheduled", "error": None}
    assert lab.api.code("POST", f"/certificates/{id}/actions/retry") == "unsupported_error"
