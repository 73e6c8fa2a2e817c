"""DNS zones and their resource record sets. They are only stored: no name server of the lab serves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from lab.cloud import zonefile
from lab.cloud.domain import actions
from lab.cloud.domain.common import require_unique_name
from lab.cloud.domain.objects import Action, Labels, PrimaryNameserver, Record, RRSet, Zone
from lab.cloud.errors import IncorrectZoneMode, InvalidInput, NotFound, Protected, UniquenessError
from lab.cloud.store import Transaction
from lab.cloud.wire.base import parse
from lab.cloud.wire.zones import (
    NAMESERVERS,
    TYPES,
    AddRecords,
    Create,
    CreateRRSet,
    NameserverBody,
    RecordBody,
)
from lab.cloud.zonefile import Entry

SOA_TIMES = "86400 10800 3600000 3600"


def create(tx: Transaction, body: Create) -> tuple[Zone, Action]:
    require_unique_name(tx, Zone, body.name)
    is_primary = body.mode == "primary"
    zone = tx.put(
        Zone(
            id=tx.new_id(),
            created=tx.now,
            name=body.name,
            labels=body.labels,
            mode=body.mode,
            ttl=body.ttl,
            primary_nameservers=() if is_primary else _nameservers(body.primary_nameservers),
        )
    )
    if is_primary:
        ttl, entries = (body.ttl, []) if body.zonefile is None else _parse(zone, body.zonefile)
        zone = tx.put(replace(zone, ttl=ttl))
        soa = f"{NAMESERVERS[0]} dns.hetzner.com. {_today(tx)}00 {SOA_TIMES}"
        defaults = [Entry("@", "SOA", None, (soa,)), Entry("@", "NS", None, NAMESERVERS)]
        given = {(entry.name, entry.type) for entry in entries} - {("@", "SOA")}
        _put_entries(tx, zone, [entry for entry in defaults if (entry.name, entry.type) not in given])
        _put_entries(tx, zone, [entry for entry in entries if (entry.name, entry.type) in given])
        for entry in body.rrsets:
            _create_rrset(tx, zone, entry)
    return zone, actions.done(tx, "create_zone", zone)


def update(tx: Transaction, zone: Zone, labels: Labels | None) -> Zone:
    return zone if labels is None else tx.put(replace(zone, labels=labels))


def delete(tx: Transaction, zone: Zone) -> Action:
    if zone.protected:
        raise Protected("zone deletion is protected")
    _require_unprotected(*rrsets(tx, zone))
    for rrset in rrsets(tx, zone):
        tx.drop(rrset)
    tx.drop(zone)
    return actions.done(tx, "delete_zone", zone)


def change_protection(tx: Transaction, zone: Zone, delete: bool | None) -> Action:
    tx.put(replace(zone, protected=zone.protected if delete is None else delete))
    return actions.done(tx, "change_protection", zone)


def change_ttl(tx: Transaction, zone: Zone, ttl: int) -> Action:
    require_primary(zone)
    tx.put(replace(zone, ttl=ttl))
    _increase_serial(tx, zone)
    return actions.done(tx, "change_ttl", zone)


def change_primary_nameservers(tx: Transaction, zone: Zone, nameservers: Iterable[NameserverBody]) -> Action:
    if zone.mode != "secondary":
        raise IncorrectZoneMode(f"zone {zone.name} is in primary mode: it has no primary nameservers")
    tx.put(replace(zone, primary_nameservers=_nameservers(nameservers)))
    return actions.done(tx, "change_primary_nameservers", zone)


def import_zonefile(tx: Transaction, zone: Zone, text: str) -> Action:
    """Replace all record sets by those of the file."""
    require_primary(zone)
    _require_unprotected(*rrsets(tx, zone))
    ttl, entries = _parse(zone, text)
    values = {(entry.name, entry.type): entry.values for entry in entries}
    if ("@", "SOA") not in values:
        raise InvalidInput.field("zonefile", "has no SOA record")
    if missing := [name for name in NAMESERVERS if name not in values.get(("@", "NS"), ())]:
        raise InvalidInput.field("zonefile", f"has no NS record of {missing[0]}")
    for rrset in rrsets(tx, zone):
        tx.drop(rrset)
    zone = tx.put(replace(zone, ttl=ttl))
    _put_entries(tx, zone, entries)
    return actions.done(tx, "import_zonefile", zone)


def export(tx: Transaction, zone: Zone) -> str:
    require_primary(zone)
    entries = [
        Entry(rrset.name, rrset.type, rrset.ttl, tuple(record.value for record in rrset.records))
        for rrset in rrsets(tx, zone)
    ]
    return zonefile.render(zone.name, zone.ttl, entries)


def record_count(tx: Transaction, zone: Zone) -> int:
    return sum(len(rrset.records) for rrset in rrsets(tx, zone))


# Resource record sets


def rrsets(tx: Transaction, zone: Zone) -> list[RRSet]:
    return [rrset for rrset in tx.all(RRSet) if rrset.zone == zone.id]


def find_rrset(tx: Transaction, zone: Zone, name: str, type: str) -> RRSet:
    require_primary(zone)
    found = _rrset(tx, zone, name, type)
    if found is None:
        raise NotFound(f"RRSet '{name}/{type}' not found")
    return found


def create_rrset(tx: Transaction, zone: Zone, body: CreateRRSet) -> tuple[RRSet, Action]:
    require_primary(zone)
    rrset = _create_rrset(tx, zone, body)
    _increase_serial(tx, zone)
    return rrset, actions.done(tx, "create_rrset", zone)


def update_rrset(tx: Transaction, rrset: RRSet, labels: Labels | None) -> RRSet:
    return rrset if labels is None else tx.put(replace(rrset, labels=labels))


def delete_rrset(tx: Transaction, zone: Zone, rrset: RRSet) -> Action:
    _require_unprotected(rrset)
    _drop_rrset(tx, rrset)
    _increase_serial(tx, zone)
    return actions.done(tx, "delete_rrset", zone)


def change_rrset_protection(tx: Transaction, zone: Zone, rrset: RRSet, change: bool) -> Action:
    tx.put(replace(rrset, protected=change))
    return actions.done(tx, "change_rrset_protection", zone)


def change_rrset_ttl(tx: Transaction, zone: Zone, rrset: RRSet, ttl: int | None) -> Action:
    _require_unprotected(rrset)
    tx.put(replace(rrset, ttl=ttl))
    _increase_serial(tx, zone)
    return actions.done(tx, "change_rrset_ttl", zone)


def set_records(tx: Transaction, zone: Zone, rrset: RRSet, records: Sequence[RecordBody]) -> Action:
    _require_unprotected(rrset)
    _require_records(zone, rrset.name, rrset.type, [record.value for record in records])
    tx.put(replace(rrset, records=_records(records)))
    _increase_serial(tx, zone)
    return actions.done(tx, "set_rrset_records", zone)


def add_records(tx: Transaction, zone: Zone, name: str, type: str, body: AddRecords) -> Action:
    """Add records to a set, which is created if it does not exist."""
    require_primary(zone)
    rrset = _rrset(tx, zone, name, type)
    if rrset is None:
        _create_rrset(tx, zone, parse(CreateRRSet, {"name": name, "type": type, **body.model_dump()}))
    else:
        _require_unprotected(rrset)
        if body.ttl is not None and rrset.ttl is not None and body.ttl != rrset.ttl:
            raise InvalidInput.field("ttl", f"{body.ttl} differs from the TTL of the RRSet, which is {rrset.ttl}")
        records = (*rrset.records, *_records(body.records))
        _require_records(zone, name, type, [record.value for record in records])
        tx.put(replace(rrset, records=records, ttl=rrset.ttl if body.ttl is None else body.ttl))
    _increase_serial(tx, zone)
    return actions.done(tx, "add_rrset_records", zone)


def remove_records(tx: Transaction, zone: Zone, rrset: RRSet, records: Sequence[RecordBody]) -> Action:
    """Remove records from a set, which is deleted with its last record."""
    _require_unprotected(rrset)
    _require_existing(rrset, records)
    removed = {record.value for record in records}
    left = tuple(record for record in rrset.records if record.value not in removed)
    if left:
        tx.put(replace(rrset, records=left))
    else:
        _drop_rrset(tx, rrset)
    _increase_serial(tx, zone)
    return actions.done(tx, "remove_rrset_records", zone)


def update_records(tx: Transaction, zone: Zone, rrset: RRSet, records: Sequence[RecordBody]) -> Action:
    """Set the comments of records."""
    _require_unprotected(rrset)
    _require_existing(rrset, records)
    comments = {record.value: record.comment for record in records}
    updated = tuple(Record(record.value, comments.get(record.value, record.comment)) for record in rrset.records)
    tx.put(replace(rrset, records=updated))
    return actions.done(tx, "update_rrset_records", zone)


def require_primary(zone: Zone) -> None:
    if zone.mode != "primary":
        raise IncorrectZoneMode(f"zone {zone.name} is in secondary mode: its records are on its primary nameservers")


def _create_rrset(tx: Transaction, zone: Zone, body: CreateRRSet) -> RRSet:
    if _rrset(tx, zone, body.name, body.type):
        message = f"RRSet {body.name}/{body.type} already exists"
        raise UniquenessError(message, {"fields": [{"name": "name"}, {"name": "type"}]})
    if f".{body.name}".endswith(f".{zone.name}"):
        raise InvalidInput.field("name", f"{body.name!r} must not end with the name of the zone")
    _require_records(zone, body.name, body.type, [record.value for record in body.records])
    return _put_rrset(tx, zone, body.name, body.type, body.ttl, _records(body.records), body.labels)


def _put_entries(tx: Transaction, zone: Zone, entries: Iterable[Entry]) -> None:
    for entry in entries:
        _put_rrset(tx, zone, entry.name, entry.type, entry.ttl, tuple(map(Record, entry.values)), {})


def _put_rrset(
    tx: Transaction, zone: Zone, name: str, type: str, ttl: int | None, records: tuple[Record, ...], labels: Labels
) -> RRSet:
    others = {rrset.type for rrset in rrsets(tx, zone) if rrset.name == name}
    if (type == "CNAME" and others) or "CNAME" in others:
        raise InvalidInput.field("type", f"{name} has a CNAME record, which excludes all other types")
    return tx.put(
        RRSet(
            id=tx.new_id(),
            created=tx.now,
            zone=zone.id,
            name=name,
            type=type,
            ttl=ttl,
            records=records,
            labels=labels,
        )
    )


def _drop_rrset(tx: Transaction, rrset: RRSet) -> None:
    if rrset.type == "SOA":
        raise InvalidInput("the SOA record of a zone cannot be deleted")
    tx.drop(rrset)


def _rrset(tx: Transaction, zone: Zone, name: str, type: str) -> RRSet | None:
    return next((rrset for rrset in rrsets(tx, zone) if (rrset.name, rrset.type) == (name, type)), None)


def _require_unprotected(*sets: RRSet) -> None:
    if any(rrset.protected for rrset in sets):
        raise Protected("RRSet(s) is/are change protected")


def _require_records(zone: Zone, name: str, type: str, values: Sequence[str]) -> None:
    faults = [("records", f"{value!r} is contained twice") for value in sorted(set(values)) if values.count(value) > 1]
    for value in values:
        try:
            zonefile.require_valid(zone.name, type, value)
        except ValueError as error:
            faults.append(("records", str(error)))
    if type in ("CNAME", "SOA") and len(values) > 1:
        faults.append(("records", f"a name has one {type} record at most"))
    if (type == "CNAME" and name == "@") or (type == "SOA" and name != "@"):
        faults.append(("name", f"{name} cannot have a {type} record"))
    if faults:
        raise InvalidInput.fields(faults)


def _require_existing(rrset: RRSet, records: Iterable[RecordBody]) -> None:
    existing = {record.value for record in rrset.records}
    if unknown := [record.value for record in records if record.value not in existing]:
        raise InvalidInput.field("records", f"{unknown[0]!r} is not a record of {rrset.name}/{rrset.type}")


def _parse(zone: Zone, text: str) -> tuple[int, list[Entry]]:
    try:
        ttl, entries = zonefile.parse(zone.name, text, zone.ttl)
    except ValueError as error:
        raise InvalidInput.field("zonefile", str(error)) from None
    for entry in entries:
        if entry.type not in TYPES:
            raise InvalidInput.field("zonefile", f"records of type {entry.type} are not supported")
        _require_records(zone, entry.name, entry.type, entry.values)
    return ttl, entries


def _records(bodies: Iterable[RecordBody]) -> tuple[Record, ...]:
    return tuple(Record(body.value, body.comment) for body in bodies)


def _nameservers(bodies: Iterable[NameserverBody]) -> tuple[PrimaryNameserver, ...]:
    return tuple(PrimaryNameserver(**body.model_dump()) for body in bodies)


def _today(tx: Transaction) -> str:
    return datetime.fromtimestamp(tx.time, UTC).strftime("%Y%m%d")


def _increase_serial(tx: Transaction, zone: Zone) -> None:
    soa = _rrset(tx, zone, "@", "SOA")
    if soa:
        value = zonefile.next_serial(soa.records[0].value, _today(tx))
        tx.put(replace(soa, records=(replace(soa.records[0], value=value),)))
