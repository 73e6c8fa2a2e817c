"""The lab's CA and its certificates: created once, issued again after a change, private on disk."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from lab import pki, secrets
from lab.settings import Settings


def test_authority_and_certificate_are_created_once(tmp_path: Path) -> None:
    authority = pki.ensure_authority(tmp_path, "unit")
    pair = pki.ensure_certificate(tmp_path, authority, "mirror", ("198.19.255.1", "mirror.test"))
    before = [path.read_bytes() for path in (*sorted(tmp_path.iterdir()),)]
    assert pki.ensure_authority(tmp_path, "unit") == authority
    assert pki.ensure_certificate(tmp_path, authority, "mirror", ("198.19.255.1", "mirror.test")) == pair
    assert [path.read_bytes() for path in (*sorted(tmp_path.iterdir()),)] == before


def test_another_address_or_authority_issues_another_certificate(tmp_path: Path) -> None:
    authority = pki.ensure_authority(tmp_path, "unit")
    first = pki.ensure_certificate(tmp_path, authority, "mirror", ("198.19.255.1",)).certificate_path.read_bytes()
    second = pki.ensure_certificate(tmp_path, authority, "mirror", ("198.19.255.5",)).certificate_path.read_bytes()
    assert first != second
    authority.key_path.unlink()
    renewed = pki.ensure_authority(tmp_path, "unit")
    third = pki.ensure_certificate(tmp_path, renewed, "mirror", ("198.19.255.5",)).certificate_path.read_bytes()
    assert second != third
    issuer = x509.load_pem_x509_certificate(renewed.certificate_path.read_bytes())
    x509.load_pem_x509_certificate(third).verify_directly_issued_by(issuer)


def test_secret_files_are_private(settings: Settings) -> None:
    secrets.api_token(settings)
    secrets.ssh_key(settings)
    authority = pki.ensure_authority(settings.state_dir / "pki", settings.name)
    pki.ensure_certificate(settings.state_dir / "pki", authority, "mirror", ("127.0.0.1",))
    files = [path for path in settings.state_dir.rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert settings.state_dir.stat().st_mode & 0o777 == 0o700


def test_token_and_key_are_created_once(settings: Settings) -> None:
    assert len(secrets.api_token(settings)) == 64
    assert secrets.api_token(settings) == secrets.api_token(settings)
    assert secrets.ssh_key(settings) == secrets.ssh_key(settings)
    assert secrets.ssh_key(settings).public_key.startswith("ssh-ed25519 ")
