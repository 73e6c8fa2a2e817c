"""Generate the missing secrets of an environment. Existing ones are never replaced."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

CA_KEY, CA_CERTIFICATE = "platform_ca_private_key", "platform_ca_certificate"
ESCROW_KEY = "platform_escrow_public_key"
CA_DAYS = 3650
TOKEN_ALPHABET, TOKEN_LENGTH = string.ascii_letters + string.digits, 64
"""380 bits."""
ACCESS_KEY_ALPHABET, ACCESS_KEY_LENGTH = string.ascii_uppercase + string.digits, 20
"""An access key is an identifier, not a secret; it appears in logs."""


@dataclass(frozen=True)
class Wanted:
    """Names of the secrets of an environment."""

    authority: str
    """Common name of the certificate authority."""
    tokens: Sequence[str] = ()
    access_keys: Sequence[str] = ()
    passwords: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Variable → names of its passwords."""


def missing(existing: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Names of the variables to generate or to complete."""
    names = {*wanted.tokens, *wanted.access_keys, *wanted.passwords, CA_KEY, CA_CERTIFICATE, ESCROW_KEY} - set(existing)
    incomplete = {
        variable for variable, keys in wanted.passwords.items() if not set(keys) <= set(existing.get(variable) or {})
    }
    return sorted(names | incomplete)


def faults(existing: Mapping[str, Any], absent: Sequence[str], path: str) -> list[str]:
    """Why the missing secrets cannot be generated."""
    if CA_KEY in absent and CA_CERTIFICATE not in absent:
        return [
            f"{path}: holds {CA_CERTIFICATE} without {CA_KEY}. Restore the key, or remove the certificate too to "
            "create a new authority (every host and client must then trust the new one)."
        ]
    if CA_CERTIFICATE in absent and CA_KEY not in absent:
        try:
            load_key(str(existing[CA_KEY]))
        except (ValueError, TypeError):
            return [f"{path}: {CA_KEY} is not an unencrypted private key in PEM form. Restore the key, or remove it."]
    return []


def escrow_pair() -> tuple[str, str]:
    """The private and the public key of a new escrow (age)."""
    from pyrage import x25519  # compiled, and used by one operation

    identity = x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def load_key(pem: str) -> Any:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(pem.encode(), None)


def completed(existing: Mapping[str, Any], wanted: Wanted, escrow_public_key: str) -> dict[str, Any]:
    """The existing secrets and the generated ones."""
    result: dict[str, Any] = {name: random_text(TOKEN_ALPHABET, TOKEN_LENGTH) for name in wanted.tokens}
    result |= {name: random_text(ACCESS_KEY_ALPHABET, ACCESS_KEY_LENGTH) for name in wanted.access_keys}
    result[ESCROW_KEY] = escrow_public_key
    result |= existing
    for variable, names in wanted.passwords.items():
        generated = {name: random_text(TOKEN_ALPHABET, TOKEN_LENGTH) for name in names}
        result[variable] = generated | dict(existing.get(variable) or {})
    if CA_KEY not in result:
        result[CA_KEY] = private_key()
    if CA_CERTIFICATE not in result:
        result[CA_CERTIFICATE] = authority_certificate(str(result[CA_KEY]), wanted.authority)
    return result


def random_text(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def authority_certificate(key_pem: str, name: str) -> str:
    """A self-signed certificate of an authority that issues certificates of one more level at most."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    key = load_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(
            x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())
