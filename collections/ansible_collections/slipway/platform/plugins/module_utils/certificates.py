"""Whether a certificate or a private key has to be issued, renewed or corrected.

cryptography is imported inside the functions: the module is imported on hosts that do not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any


def certificate_due(
    pem: str,
    *,
    authority: str,
    names: Sequence[str],
    addresses: Sequence[str] | None = None,
    days: int,
    now: datetime | None = None,
) -> str:
    """Why a certificate has to be renewed, or an empty string: absent, other authority, other names, near expiry.

    Addresses are compared if they are given.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    moment = now or datetime.now(UTC)
    if not pem.strip():
        return "there is none yet"
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        issuer = x509.load_pem_x509_certificate(authority.encode())
    except ValueError as error:
        return f"it cannot be read ({error})"
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return "another authority issued it"
    try:
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        covered = x509.SubjectAlternativeName([])
    covered_names = set(covered.get_values_for_type(x509.DNSName))
    if covered_names != set(names):
        return f"it is for {', '.join(sorted(covered_names)) or 'no name'}"
    covered_addresses = {str(address) for address in covered.get_values_for_type(x509.IPAddress)}
    if addresses is not None and covered_addresses != set(addresses):
        return f"it is for {', '.join(sorted(covered_addresses)) or 'no address'}"
    if certificate.not_valid_before_utc > moment:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return _expiry_due(certificate, days, moment)


def expiry_due(pem: str, days: int, now: datetime | None = None) -> str:
    """Why a certificate is absent, unreadable or expires within these days, or an empty string."""
    from cryptography import x509

    if not pem.strip():
        return "there is none yet"
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        return f"it cannot be read ({error})"
    return _expiry_due(certificate, days, now or datetime.now(UTC))


def expiry(pem: str) -> int:
    """Expiry of a certificate in seconds since 1970; 0 if it is absent or unreadable."""
    from cryptography import x509

    try:
        return int(x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp())
    except ValueError:
        return 0


def _expiry_due(certificate: Any, days: int, moment: datetime) -> str:
    if certificate.not_valid_after_utc - moment < timedelta(days=days):
        return f"it expires on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def key_pair_due(
    pem: str,
    *,
    public_key: str,
    authority: str,
    names: Sequence[str],
    addresses: Sequence[str],
    days: int,
    now: datetime | None = None,
) -> str:
    """The same for a server's certificate whose private key is on a host; `public_key` is its public half, or empty.

    The certificate must also match the roles' requests: one PEM block, the first name as subject, server use only.
    """
    if reason := certificate_due(pem, authority=authority, names=names, addresses=addresses, days=days, now=now):
        return reason
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    certificate = x509.load_pem_x509_certificate(pem.encode())
    certified_key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if certified_key.split() != public_key.split():
        return "it belongs to another private key than that of the host"
    if certificate.public_bytes(Encoding.PEM).decode().split() != pem.split():
        return "its file holds more than one certificate"
    named = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    if [attribute.value for attribute in named] != list(names[:1]):
        return "its subject is another one"
    if _usage(certificate) != {
        x509.KeyUsage: (True, [True, *[False] * 6]),
        x509.ExtendedKeyUsage: (False, [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.BasicConstraints: (True, [False]),
    }:
        return "it is for another use than that of a server"
    return ""


def _usage(certificate: Any) -> dict[Any, Any]:
    """Key usage, extended key usage and basic constraints of a certificate: whether critical, and the values."""
    from cryptography import x509

    found: dict[Any, Any] = {}
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            flags = [value.digital_signature, value.content_commitment, value.key_encipherment]
            flags += [value.data_encipherment, value.key_agreement, value.key_cert_sign, value.crl_sign]
            found[x509.KeyUsage] = (extension.critical, flags)
        elif isinstance(value, x509.ExtendedKeyUsage):
            found[x509.ExtendedKeyUsage] = (extension.critical, list(value))
        elif isinstance(value, x509.BasicConstraints):
            found[x509.BasicConstraints] = (extension.critical, [value.ca])
    return found


def private_key_due(found: Mapping[str, Any] | None, *, owner: str, group: str, mode: str) -> str:
    """Why a host's private key has to be generated or its file corrected, or an empty string.

    `found` is the key as slipway.platform.host_info describes it. The roles use keys on the curve P-256.
    """
    if found is None:
        return "there is none yet"
    if not found["public_key"]:
        return "it cannot be read"
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(str(found["public_key"]).encode())
    except ValueError as error:
        return f"it cannot be read ({error})"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return "it is of another kind"
    present, wanted = (found["owner"], found["group"], int(found["mode"], 8)), (owner, group, int(mode, 8))
    if present != wanted:
        return f"its file is {found['owner']}:{found['group']} {found['mode']}"
    return ""
