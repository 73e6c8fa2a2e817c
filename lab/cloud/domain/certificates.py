from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtensionOID, NameOID

from lab.cloud.domain import actions, targets
from lab.cloud.domain.common import require_unique_name
from lab.cloud.domain.objects import Action, Certificate, Job
from lab.cloud.domain.view import View
from lab.cloud.errors import InvalidInput, ResourceInUse, UnsupportedError
from lab.cloud.store import Transaction
from lab.cloud.wire.certificates import Create


def create(tx: Transaction, body: Create) -> tuple[Certificate, Action | None]:
    require_unique_name(tx, Certificate, body.name)
    certificate = Certificate(
        id=tx.new_id(),
        created=tx.now,
        name=body.name,
        labels=body.labels,
        type=body.type,
        domain_names=tuple(dict.fromkeys(body.domain_names)),
    )
    if body.type == "managed":
        certificate = tx.put(replace(certificate, issuance="pending"))
        return certificate, _issue(tx, "create_certificate", certificate)
    return tx.put(with_content(certificate, body.certificate or "", body.private_key or "")), None


def delete(tx: Transaction, certificate: Certificate) -> None:
    actions.require_unlocked(tx, certificate)
    if targets.balancers_with(View(tx), certificate):
        raise ResourceInUse(f"certificate with ID {certificate.id} is still in use")
    tx.drop(certificate)


def retry(tx: Transaction, certificate: Certificate) -> Action:
    actions.require_unlocked(tx, certificate)
    if certificate.issuance != "failed":
        raise UnsupportedError("certificate not retryable")
    return _issue(tx, "issue_certificate", tx.put(replace(certificate, issuance="pending", error=None)))


def issued(tx: Transaction, certificate: Certificate, chain: str, key: str) -> None:
    """Store what the certificate authority issued."""
    tx.put(replace(with_content(certificate, chain, key), issuance="completed", error=None))


def not_issued(tx: Transaction, job: Job) -> None:
    certificate, action = tx.get(Certificate, job.args["certificate"]), tx.get(Action, job.action)
    if certificate:
        tx.put(replace(certificate, issuance="failed", error=action.error if action else None))


def _issue(tx: Transaction, command: str, certificate: Certificate) -> Action:
    return actions.start(tx, command, certificate, work="issue_certificate")


def with_content(certificate: Certificate, chain: str, private_key: str) -> Certificate:
    """Validate a chain and its key, and derive what the API shows of them."""
    leaf = _leaf(chain)
    try:
        key = serialization.load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput.field("private_key", "is not an unencrypted private key in PEM format") from None
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise InvalidInput.field("private_key", "does not belong to the certificate")
    return replace(
        certificate,
        certificate=chain,
        private_key=private_key,
        domain_names=tuple(_names(leaf)) or certificate.domain_names,
        not_valid_before=_time(leaf.not_valid_before_utc),
        not_valid_after=_time(leaf.not_valid_after_utc),
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(":"),
    )


def _leaf(chain: str) -> x509.Certificate:
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        raise InvalidInput.field("certificate", "is not a certificate in PEM format") from None
    for certificate, issuer in pairwise(certificates):
        if certificate.issuer != issuer.subject:
            raise InvalidInput.field("certificate", "each certificate of the chain must certify the one before it")
    return certificates[0]


def _public(key: object) -> bytes:
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(der, info)  # type: ignore[attr-defined,no-any-return]


def _names(leaf: x509.Certificate) -> Iterable[str]:
    try:
        extension = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return [str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def _time(when: datetime) -> str:
    return when.replace(microsecond=0).isoformat()
