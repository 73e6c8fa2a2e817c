"""The lab's certificate authority: issues the certificates of what the lab itself serves over HTTPS.

It corresponds to the public authorities outside the lab; hosts trust it through the inventory's
`platform_trusted_ca_certificates`. The platform creates its own CA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.secrets import make_private_dir, write_private

AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate_path: Path
    key_path: Path


def ensure_authority(folder: Path, name: str) -> KeyPair:
    """The CA of the lab `name`, created when it is missing or about to expire."""
    pair = KeyPair(folder / "ca.pem", folder / "ca.key")
    if _usable(pair):
        return pair
    make_private_dir(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Slipway lab {name}")])
    certificate = (
        _builder(subject, subject, key.public_key(), AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(pair, key, certificate)
    return pair


def ensure_certificate(folder: Path, authority: KeyPair, name: str, subjects: tuple[str, ...]) -> KeyPair:
    """A server certificate for `subjects` (addresses and DNS names), issued again when any property differs."""
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.key")
    names = [_general_name(subject) for subject in subjects]
    issuer = x509.load_pem_x509_certificate(authority.certificate_path.read_bytes())
    if _usable(pair):
        current = x509.load_pem_x509_certificate(pair.certificate_path.read_bytes())
        held = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(held) == names and _signed_by(current, issuer):
            return pair
    make_private_dir(folder)
    _write(pair, *_issue(authority, issuer, name, names))
    return pair


def issue_for_domains(folder: Path, lab: str, domain_names: Sequence[str]) -> tuple[str, str]:
    """A server certificate of the lab's CA with its key, both in PEM format; nothing is written."""
    authority = ensure_authority(folder, lab)
    issuer = x509.load_pem_x509_certificate(authority.certificate_path.read_bytes())
    # A common name has 64 characters at most.
    key, certificate = _issue(authority, issuer, domain_names[0][:64], [x509.DNSName(name) for name in domain_names])
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key).decode()


def _issue(
    authority: KeyPair, issuer: x509.Certificate, name: str, names: list[x509.GeneralName]
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    issuer_key = serialization.load_pem_private_key(authority.key_path.read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        # Python 3.13 verifies strictly by default: without this extension verification fails.
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return key, certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A host's clock may be behind this machine's.
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(subject: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(subject)
    except ValueError:
        return x509.DNSName(subject)
    return x509.IPAddress(address)


def _usable(pair: KeyPair) -> bool:
    if not (pair.certificate_path.exists() and pair.key_path.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(pair.certificate_path.read_bytes())
    return certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(pair: KeyPair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    write_private(pair.key_path, _pem(key))
    write_private(pair.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
