"""When a certificate or a private key has to be issued again, by certificates of real authorities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.platform.plugins.filter import certificates as filters
from ansible_collections.slipway.platform.plugins.module_utils import certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.static.repository import REPOSITORY

NOW = datetime(2026, 11, 30, tzinfo=UTC)
NAMES, ADDRESSES = ["db.example.com", "*.db.example.com"], ["10.0.1.71"]
SERVER_USE: tuple[tuple[x509.ExtensionType, bool], ...] = (
    (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    (x509.BasicConstraints(ca=False, path_length=None), True),
)


def public(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


class Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self.issue(subject=name, names=(), addresses=(), days=3650, usage=())

    def issue(
        self,
        *,
        key: Any = None,
        subject: str = NAMES[0],
        names: Sequence[str] = NAMES,
        addresses: Sequence[str] = ADDRESSES,
        days: int = 90,
        since: int = -1,
        usage: Sequence[tuple[x509.ExtensionType, bool]] = SERVER_USE,
    ) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(self.name)
            .public_key((key or self.key).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=since))
            .not_valid_after(NOW + timedelta(days=days))
        )
        covered = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(text)) for text in addresses)]
        if covered:
            builder = builder.add_extension(x509.SubjectAlternativeName(covered), critical=False)
        for extension, critical in usage:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


AUTHORITY, OTHER_AUTHORITY = Authority("ours"), Authority("ours")
KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
GOOD = AUTHORITY.issue(key=KEY)
FAULTS = {
    "none": ("", "there is none yet"),
    "blank": ("\n", "there is none yet"),
    "nonsense": ("nonsense", "it cannot be read"),
    "damaged": (GOOD.replace("M", "N", 3), "it cannot be read"),
    "other authority of the same name": (OTHER_AUTHORITY.issue(key=KEY), "another authority issued it"),
    "a name is missing": (AUTHORITY.issue(key=KEY, names=NAMES[:1]), "it is for db.example.com"),
    "a name is too many": (AUTHORITY.issue(key=KEY, names=[*NAMES, "x"]), "it is for *.db.example.com, db.exa"),
    "no name": (AUTHORITY.issue(key=KEY, names=[], addresses=[]), "it is for no name"),
    "other address": (AUTHORITY.issue(key=KEY, addresses=["10.0.1.72"]), "it is for 10.0.1.72"),
    "no address": (AUTHORITY.issue(key=KEY, addresses=[]), "it is for no address"),
    "expired": (AUTHORITY.issue(key=KEY, since=-9, days=-1), "it expires on 2026-11-29"),
    "ends soon": (AUTHORITY.issue(key=KEY, days=29), "it expires on 2026-12-29"),
    "still to come": (AUTHORITY.issue(key=KEY, since=2), "it is not valid before 2026-12-02"),
}


@pytest.mark.parametrize(("pem", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_certificate_is_due_for_what_it_is(pem: str, reason: str) -> None:
    wanted: dict[str, Any] = {"authority": AUTHORITY.pem, "names": NAMES, "addresses": ADDRESSES, "days": 30}
    assert certificates.certificate_due(pem, **wanted, now=NOW).startswith(reason)
    assert certificates.key_pair_due(pem, public_key=public(KEY), **wanted, now=NOW).startswith(reason)


@pytest.mark.parametrize("fault", ["none", "blank", "nonsense", "damaged", "expired", "ends soon"])
def test_the_end_of_a_certificate_alone(fault: str) -> None:
    pem, reason = FAULTS[fault]
    assert certificates.expiry_due(pem, 30, NOW).startswith(reason)


def test_a_certificate_that_does_not_end_soon_is_not_due_whoever_issued_it() -> None:
    assert certificates.expiry_due(OTHER_AUTHORITY.issue(days=31), 30, NOW) == ""


def test_the_expiry_of_a_certificate_as_a_metric() -> None:
    assert filters.certificate_expiry(AUTHORITY.issue(days=365)) == int((NOW + timedelta(days=365)).timestamp())
    assert {filters.certificate_expiry(FAULTS[name][0]) for name in ("none", "blank", "nonsense", "damaged")} == {0}
    assert filters.certificate_expiry(None) == 0


def test_the_metric_of_the_database_host_is_what_prometheus_reads() -> None:
    path = "var/lib/prometheus/node-exporter/slipway_postgresql_certificate.prom"
    text = (REPOSITORY / f"roles/postgresql/templates/{path}.j2").read_text()
    *comments, sample = text.removesuffix("\n").split("\n")
    name = "slipway_postgresql_certificate_expiry_timestamp_seconds"
    assert [comment.split()[1:3] for comment in comments] == [["HELP", name], ["TYPE", name]]
    assert sample == f"{name} {{{{ __postgresql_certificate | slipway.platform.certificate_expiry }}}}"
    assert f"path: /{path}\n" in (REPOSITORY / "roles/postgresql/tasks/configure.yml").read_text()


@pytest.mark.parametrize(
    ("role", "certificate", "valid"),
    [
        ("ceph", "ceph_object_gateway_certificate", "_days"),
        ("load_balancer", "load_balancer_certificate", "_valid_days"),
        ("postgresql", "postgresql_certificate", "_valid_days"),
        ("rke2", "rke2_ingress_certificate", "_days"),
    ],
)
def test_a_platform_outlives_three_months_without_a_run(role: str, certificate: str, valid: str) -> None:
    """The last run may have left a certificate alone one day before its renewal; verify finds it before its end."""
    roles = REPOSITORY / "roles"
    defaults = yaml.safe_load((roles / role / "defaults/main.yml").read_text())
    warned = yaml.safe_load((roles / "verify/defaults/main.yml").read_text())["verify_certificate_days"]
    assert defaults[certificate + valid] == 365
    assert 92 + warned <= defaults[f"{certificate}_renew_days"] < 365 and warned == 30


def test_every_certificate_that_a_role_issues_is_known_to_these_tests() -> None:
    def roles(pattern: str) -> set[str]:
        paths = (REPOSITORY / "roles").rglob("*.yml")
        found = (path for path in paths if re.search(pattern, path.read_text(), re.MULTILINE))
        return {path.relative_to(REPOSITORY / "roles").parts[0] for path in found}

    assert roles("ownca_not_after") == {"certificate"}, "issued by the internal role alone"
    assert roles("^ +name: certificate$") == {"ceph", "load_balancer", "postgresql", "rke2"}


@pytest.mark.parametrize("days", [0, 30, 90])
def test_a_good_certificate_is_not_due(days: int) -> None:
    wanted: dict[str, Any] = {"authority": AUTHORITY.pem, "names": NAMES[::-1], "days": days}
    assert certificates.certificate_due(GOOD, **wanted, addresses=ADDRESSES, now=NOW) == ""
    assert certificates.certificate_due(GOOD, **wanted, now=NOW) == ""


PAIRS = {
    "good": (GOOD, public(KEY), ""),
    "foreign key": (GOOD, public(OTHER_KEY), "it belongs to another private key than that of the host"),
    "lost key": (GOOD, "", "it belongs to another private key than that of the host"),
    "key of another kind": (AUTHORITY.issue(key=rsa.generate_private_key(65537, 2048)), public(KEY), "it belongs to"),
    "a chain": (GOOD + AUTHORITY.pem, public(KEY), "its file holds more than one certificate"),
    "other subject": (AUTHORITY.issue(key=KEY, subject="x"), public(KEY), "its subject is another one"),
    "no use": (AUTHORITY.issue(key=KEY, usage=()), public(KEY), "it is for another use than that of a server"),
    "an authority": (
        AUTHORITY.issue(key=KEY, usage=(*SERVER_USE[:2], (x509.BasicConstraints(True, None), True))),
        public(KEY),
        "it is for another use than that of a server",
    ),
    "clients too": (
        AUTHORITY.issue(
            key=KEY,
            usage=(
                SERVER_USE[0],
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                SERVER_USE[2],
            ),
        ),
        public(KEY),
        "it is for another use than that of a server",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pem", "public_key", "reason"), PAIRS.values(), ids=PAIRS)
def test_a_pair_is_due_when_its_halves_do_not_fit(pem: str, public_key: str, reason: str) -> None:
    wanted: dict[str, Any] = {"authority": AUTHORITY.pem, "names": NAMES, "addresses": ADDRESSES, "days": 30}
    found = certificates.key_pair_due(pem, public_key=public_key, **wanted, now=NOW)
    assert found.startswith(reason) and bool(found) == bool(reason)


def described(key: Any = KEY, **changed: str) -> dict[str, str]:
    return {"owner": "root", "group": "ssl-cert", "mode": "0640", "public_key": public(key)} | changed


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (described(), ""),
        (described(mode="640"), ""),
        (None, "there is none yet"),
        (described(public_key=""), "it cannot be read"),
        (described(public_key="nonsense"), "it cannot be read"),
        (described(ec.generate_private_key(ec.SECP384R1())), "it is of another kind"),
        (described(rsa.generate_private_key(65537, 2048)), "it is of another kind"),
        (described(mode="0644"), "its file is root:ssl-cert 0644"),
        (described(owner="postgres"), "its file is postgres:ssl-cert 0640"),
        (described(group="root"), "its file is root:root 0640"),
    ],
)
def test_a_private_key_is_due_for_what_it_is(found: dict[str, str] | None, reason: str) -> None:
    due = certificates.private_key_due(found, owner="root", group="ssl-cert", mode="0640")
    assert due.startswith(reason) and bool(due) == bool(reason)


def test_filters_take_what_a_host_answers() -> None:
    """A host without files answers null; numbers of an inventory may be texts."""
    rest: list[Any] = [AUTHORITY.pem, NAMES, ADDRESSES]
    assert filters.certificate_due(None, *rest, 30) == "there is none yet"
    assert filters.key_pair_due(None, None, *rest, 30) == "there is none yet"
    assert filters.private_key_due(None, "root", "root", "0600") == "there is none yet"
    later = (datetime.now(UTC) - NOW).days + 60
    assert filters.key_pair_due(AUTHORITY.issue(key=KEY, days=later), described(), *rest, "30") == ""  # type: ignore[arg-type]
