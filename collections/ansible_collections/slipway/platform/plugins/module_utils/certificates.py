"""Whether a certificate, and the private key that it belongs to, still serve.

cryptography is imported where it is used: on the controller, and by runs that reach it.
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
    """Why a certificate has to be issued anew, or an empty text: absent, other authority, other names, near its end.

    Addresses are compared where they are given.
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
    present = set(covered.get_values_for_type(x509.DNSName))
    if present != set(names):
        return f"it is for {', '.join(sorted(present)) or 'no name'}"
    reached = {str(address) for address in covered.get_values_for_type(x509.IPAddress)}
    if addresses is not None and reached != set(addresses):
        return f"it is for {', '.join(sorted(reached)) or 'no address'}"
    if certificate.not_valid_before_utc > moment:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return _end_due(certificate, days, moment)


def end_due(pem: str, days: int, now: datetime | None = None) -> str:
    """Why a certificate is absent, cannot be read or ends within these days, or an empty text."""
    from cryptography import x509

    if not pem.strip():
        return "there is none yet"
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        return f"it cannot be read ({error})"
    return _end_due(certificate, days, now or datetime.now(UTC))


def expiry(pem: str) -> int:
    """When a certificate expires, in seconds since 1970; 0 where there is none that can be read."""
    from cryptography import x509

    try:
        return int(x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp())
    except ValueError:
        return 0


def _end_due(certificate: Any, days: int, moment: datetime) -> str:
    if certificate.not_valid_after_utc - moment < timedelta(days=days):
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
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
    """The same for a server's certificate with its key on a host, of which the public half is known (or nothing).

    It also has to be what the roles request: one PEM block, for the first of the names, for servers alone.
    """
    if reason := certificate_due(pem, authority=authority, names=names, addresses=addresses, days=days, now=now):
        return reason
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    certificate = x509.load_pem_x509_certificate(pem.encode())
    held = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if held.split() != public_key.split():
        return "it belongs to another private key than the host has"
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
    """What a certificate may be used for, by the extension that says so: whether it is critical, and its values."""
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
    """Why a host's private key has to be made or its file corrected, or an empty text.

    `found` is what slipway.platform.host_info read of it. The roles use keys on the curve P-256.
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
