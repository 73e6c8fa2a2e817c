from __future__ import annotations

import base64
import binascii
import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lab.cloud.domain.objects import PrimaryNameserver, Record, RRSet, Zone
from lab.cloud.wire.base import Body, LabelMap

NAMESERVERS = ("hydrogen.ns.hetzner.com.", "oxygen.ns.hetzner.com.", "helium.ns.hetzner.de.")
NOT_PUBLIC = frozenset({"test", "example", "invalid", "localhost", "local", "internal", "lan", "home", "corp", "arpa"})
SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"})
"""Labels that form a public suffix with a country code, as in example.co.uk."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ZONE_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_RRSET_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_RRSET_NAME = re.compile(rf"@|\*|(?:\*\.)?{_RRSET_LABEL}(?:\.{_RRSET_LABEL})*")


def _zone_name(text: str) -> str:
    labels = text.split(".")
    has_long_suffix = len(labels) == 3 and len(labels[2]) == 2 and labels[1] in SECOND_LEVEL
    if not _ZONE_NAME.fullmatch(text) or labels[-1].isdecimal() or labels[-1] in NOT_PUBLIC:
        raise ValueError(f"{text!r} is not a domain in lower case with a public suffix, such as example.com")
    if len(labels) > 2 and not has_long_suffix:
        raise ValueError(f"{text!r} is a subdomain; create the zone of the domain")
    return text


def _rrset_name(text: str) -> str:
    if not _RRSET_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name in lower case, relative to the zone, such as www, *.apps or @")
    return text


def _address(text: str) -> str:
    return str(ip_address(text))


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("is not base64") from None
    return text


Ttl = Annotated[int, Field(ge=60, le=2147483647)]
ZoneName = Annotated[str, StringConstraints(max_length=255), AfterValidator(_zone_name)]
RRSetName = Annotated[str, AfterValidator(_rrset_name)]
Type = Literal[
    "A", "AAAA", "CAA", "CNAME", "DS", "HINFO", "HTTPS", "MX", "NS", "PTR", "RP", "SOA", "SRV", "SVCB", "TLSA", "TXT"
]
TYPES: frozenset[str] = frozenset(get_args(Type))


class NameserverBody(Body):
    address: Annotated[str, AfterValidator(_address)]
    port: Annotated[int, Field(ge=1, le=65535)] = 53
    tsig_key: Annotated[str, AfterValidator(_base64)] | None = None
    tsig_algorithm: Literal["hmac-md5", "hmac-sha1", "hmac-sha256"] | None = None

    @model_validator(mode="after")
    def _require_both(self) -> NameserverBody:
        if (self.tsig_key is None) != (self.tsig_algorithm is None):
            raise ValueError("tsig_key and tsig_algorithm require each other")
        return self


def _distinct_addresses(nameservers: tuple[NameserverBody, ...]) -> tuple[NameserverBody, ...]:
    if len({nameserver.address for nameserver in nameservers}) < len(nameservers):
        raise ValueError("contains an address twice")
    return nameservers


class RecordBody(Body):
    value: str
    comment: str = ""


class CommentedRecord(RecordBody):
    comment: str


def _distinct_values[R: RecordBody](records: tuple[R, ...]) -> tuple[R, ...]:
    if len({record.value for record in records}) < len(records):
        raise ValueError("contains a value twice")
    return records


Nameservers = Annotated[tuple[NameserverBody, ...], AfterValidator(_distinct_addresses)]
Records = Annotated[tuple[RecordBody, ...], Field(min_length=1, max_length=50), AfterValidator(_distinct_values)]
CommentedRecords = Annotated[
    tuple[CommentedRecord, ...], Field(min_length=1, max_length=50), AfterValidator(_distinct_values)
]


class CreateRRSet(Body):
    name: RRSetName
    type: Type
    ttl: Ttl | None = None
    records: Records
    labels: LabelMap = Field(default_factory=dict)


class Create(Body):
    name: ZoneName
    mode: Literal["primary", "secondary"]
    ttl: Ttl = 3600
    labels: LabelMap = Field(default_factory=dict)
    primary_nameservers: Nameservers = ()
    rrsets: tuple[CreateRRSet, ...] = ()
    zonefile: str | None = None

    @model_validator(mode="after")
    def _require_fields(self) -> Create:
        if self.mode == "secondary" and not self.primary_nameservers:
            raise ValueError("primary_nameservers is required with mode secondary")
        if self.zonefile is not None and self.rrsets:
            raise ValueError("rrsets must be empty with a zonefile")
        return self


class Update(Body):
    labels: LabelMap | None = None


class ChangeNameservers(Body):
    primary_nameservers: Annotated[Nameservers, Field(min_length=1)]


class ChangeTtl(Body):
    ttl: Ttl


class ChangeRRSetTtl(Body):
    ttl: Ttl | None = None


class Import(Body):
    zonefile: str


class RRSetProtection(Body):
    change: bool


class SetRecords(Body):
    records: Records


class AddRecords(SetRecords):
    ttl: Ttl | None = None


class UpdateRecords(Body):
    records: CommentedRecords


def shape(zone: Zone, record_count: int) -> dict[str, Any]:
    return {
        "id": zone.id,
        "name": zone.name,
        "mode": zone.mode,
        "ttl": zone.ttl,
        "labels": zone.labels,
        "created": zone.created,
        "status": "ok",
        "record_count": record_count,
        "protection": {"delete": zone.protected},
        "primary_nameservers": [_nameserver(entry) for entry in zone.primary_nameservers],
        "authoritative_nameservers": {
            "assigned": NAMESERVERS,
            "delegated": [],
            "delegation_last_check": None,
            "delegation_status": "unknown",
        },
        "registrar": "other",
    }


def _nameserver(nameserver: PrimaryNameserver) -> dict[str, Any]:
    tsig = {"tsig_key": nameserver.tsig_key, "tsig_algorithm": nameserver.tsig_algorithm}
    shown: dict[str, Any] = {"address": nameserver.address, "port": nameserver.port}
    return shown | {key: value for key, value in tsig.items() if value is not None}


def rrset_shape(rrset: RRSet) -> dict[str, Any]:
    return {
        "id": f"{rrset.name}/{rrset.type}",
        "name": rrset.name,
        "type": rrset.type,
        "ttl": rrset.ttl,
        "labels": rrset.labels,
        "protection": {"change": rrset.protected},
        "records": [_record(record) for record in rrset.records],
        "zone": rrset.zone,
    }


def _record(record: Record) -> dict[str, str]:
    return {"value": record.value, "comment": record.comment}
