"""The internal role `certificate`, run against the controller itself."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tests.playbooks import run_playbook

NAMES = ["*.apps.example.com", "example.com"]
HOSTS = ["first", "second"]


@pytest.fixture(scope="module")
def ca() -> tuple[str, str]:
    """Certificate and private key of a CA, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "platform")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private_key.decode()


def issue(
    folder: Path, ca: tuple[str, str], *options: str, hosts: int = 1, **values: Any
) -> tuple[str, list[dict[str, Any]]]:
    """Output of the run, and the result on each host."""
    include = {
        "ansible.builtin.include_role": {"name": "certificate", "apply": {"run_once": True} if hosts > 1 else {}},
        "vars": {
            "certificate_names": NAMES,
            "certificate_reason": "there is none yet",
            "certificate_ca_certificate": ca[0],
            "certificate_ca_private_key": ca[1],
        }
        | values,
    }
    write = {
        "ansible.builtin.copy": {
            "content": "{{ certificate_result | to_json }}",
            "dest": f"{folder}/{{{{ inventory_hostname }}}}.json",
            "mode": "0600",
        },
        "check_mode": False,
    }
    play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [include, write]}
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([play | {"vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}}]))
    code, output = run_playbook(folder, ",".join(HOSTS[:hosts]) + ",", playbook, *options)
    assert code == 0, output
    return output, [json.loads((folder / f"{host}.json").read_text()) for host in HOSTS[:hosts]]


def public_key(private_key: bytes) -> str:
    key = load_pem_private_key(private_key, None).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def due(certificate: str, key: bytes, ca: tuple[str, str], addresses: list[str]) -> str:
    return certificates.key_pair_due(
        certificate, public_key=public_key(key), authority=ca[0], names=NAMES, addresses=addresses, days=364
    )


def on_host(path: Path) -> dict[str, Any]:
    return {
        "certificate_private_key_path": str(path),
        "certificate_private_key_owner": str(os.getuid()),
        "certificate_private_key_group": str(os.getgid()),
        "certificate_private_key_mode": "0640",
    }


def test_a_key_with_a_path_stays_on_the_host(tmp_path: Path, ca: tuple[str, str]) -> None:
    path = tmp_path / "server.key"
    output, [result] = issue(tmp_path, ca, "-vvv", certificate_addresses=["10.0.0.1"], **on_host(path))
    assert result["private_key"] == ""
    assert due(result["certificate"], path.read_bytes(), ca, ["10.0.0.1"]) == ""
    assert path.stat().st_mode & 0o777 == 0o640
    assert "PRIVATE KEY" not in output

    path.chmod(0o600)
    before = path.read_bytes()
    _, [result] = issue(tmp_path, ca, certificate_reason="", **on_host(path))
    assert result == {"certificate": "", "private_key": ""}
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (before, 0o640), "only the mode is corrected"


def test_check_mode_issues_nothing(tmp_path: Path, ca: tuple[str, str]) -> None:
    path = tmp_path / "server.key"
    output, [result] = issue(tmp_path, ca, "--check", **on_host(path), certificate_cryptography_installed=False)
    assert "Would issue a certificate for *.apps.example.com, example.com: there is none yet" in " ".join(
        output.split()
    )
    assert result == {"certificate": "", "private_key": ""}
    assert not path.exists()


@pytest.mark.parametrize("options", [["-vvv"], ["-vvv", "--check"]])
def test_a_key_without_a_path_is_shared_by_all_hosts(tmp_path: Path, ca: tuple[str, str], options: list[str]) -> None:
    output, [first, second] = issue(tmp_path, ca, *options, hosts=2)
    assert first == second
    assert due(first["certificate"], first["private_key"].encode(), ca, []) == ""
    assert "PRIVATE KEY" not in output


def test_a_name_longer_than_a_common_name_is_an_alternative_name(tmp_path: Path, ca: tuple[str, str]) -> None:
    """A common name has at most 64 characters."""
    name = f"{'a' * 60}.{'b' * 20}.example.com"
    _, [result] = issue(tmp_path, ca, certificate_names=[name, "example.com"])
    certificate = x509.load_pem_x509_certificate(result["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [name, "example.com"]
    assert names.critical and list(certificate.subject) == []
