"""Zone files in BIND's format, and the values of records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
from dns.rdtypes.ANY.SOA import SOA

_TTL_DIRECTIVE = re.compile(r"^\$TTL\s+(\S+)", re.MULTILINE)
_ORIGIN_DIRECTIVE = re.compile(r"^\$ORIGIN\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A resource record set of a zone file. `ttl` None: the default of the zone."""

    name: str
    type: str
    ttl: int | None
    values: tuple[str, ...]


def require_valid(zone: str, type: str, value: str) -> None:
    """Require a value of a record; ValueError says what is wrong with it."""
    if type == "TXT" and not re.fullmatch(r'"[^\n]*"', value):
        raise ValueError(f"{value!r} is not a TXT record: write each of its texts in double quotes")
    try:
        parsed = dns.rdata.from_text(dns.rdataclass.IN, type, value, dns.name.from_text(zone), relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"{value!r} is not a record of type {type}: {error or error.__class__.__name__}") from None
    if parsed.rdcomment is not None or value.startswith("\\#"):
        raise ValueError(f"{value!r} is not a record of type {type}: comments and generic data are not allowed")


def parse(zone: str, text: str, ttl: int) -> tuple[int, list[Entry]]:
    """The default TTL (`ttl` unless the file sets one) and the record sets; ValueError says what is wrong."""
    for origin in _ORIGIN_DIRECTIVE.findall(text):
        if origin != f"{zone}.":
            raise ValueError(f"$ORIGIN {origin} is not {zone}.")
    try:
        read = dns.zone.from_text(
            f"$TTL {ttl}\n{text}",
            dns.name.from_text(zone),
            relativize=True,
            check_origin=False,
            allow_directives=("$ORIGIN", "$TTL"),
        )
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"the zone file is not valid: {error or error.__class__.__name__}") from None
    written = _TTL_DIRECTIVE.findall(text)
    default = int(written[-1]) if written and written[-1].isdecimal() else ttl
    entries = []
    for name, rdataset in read.iterate_rdatasets():
        values = tuple(rdata.to_text(dns.name.from_text(zone), relativize=False) for rdata in rdataset)
        explicit = None if rdataset.ttl in (ttl, default) else rdataset.ttl
        entries.append(Entry(name.to_text(), dns.rdatatype.to_text(rdataset.rdtype), explicit, values))
    return default, entries


def render(zone: str, ttl: int, entries: Iterable[Entry]) -> str:
    lines = [f"$ORIGIN\t{zone}.", f"$TTL\t{ttl}"]
    for entry in entries:
        own = "" if entry.ttl is None else f"\t{entry.ttl}"
        lines += ["", *(f"{entry.name}\tIN{own}\t{entry.type}\t{value}" for value in entry.values)]
    return "\n".join(lines) + "\n"


def next_serial(soa: str, today: str) -> str:
    """The value of an SOA record with its next serial number; `today` as YYYYMMDD."""
    record = dns.rdata.from_text(dns.rdataclass.IN, "SOA", soa)
    assert isinstance(record, SOA)
    serial = max(record.serial + 1, int(f"{today}00")) % 2**32
    return str(record.replace(serial=serial).to_text())
