"""The listing of a bucket with snapshots: what exists, how old it is, what is missing. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    PARTS,
    Manifest,
    disagreement,
    newest,
)

NOT_RESTORED = ("ceph/monitor-",)
"""A new cluster has monitors of its own; their snapshots repair a cluster whose OSDs survived."""
UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


@dataclass(frozen=True)
class Expected:
    """A series of snapshots that has to exist."""

    part: str
    host: str = ""
    """The host that makes them; empty for any, as after a failover."""
    prefix: str = ""
    """Begin of the keys, which continue with the time; empty for all of the part."""

    def matches(self, manifest: Manifest) -> bool:
        own = not self.prefix or re.match(rf"{re.escape(self.prefix)}\d{{8}}T\d{{6}}Z\.", manifest.object)
        return manifest.part == self.part and self.host in ("", manifest.host) and bool(own)


@dataclass(frozen=True)
class Row:
    part: str
    host: str
    newest: str
    created: str
    age_seconds: int
    size_bytes: int
    manifest: str
    """`ok`, or how the newest manifest and its object differ."""
    missing: str
    """Why a snapshot that is due is missing; empty if none is."""


def row(expected: Expected, manifests: Sequence[Manifest], objects: Mapping[str, Entry], now: datetime) -> Row:
    """The newest snapshot of a series, good or not; the newest good one decides what is missing."""
    own = [manifest for manifest in manifests if expected.matches(manifest)]
    good = newest(manifest for manifest in own if not disagreement(manifest, objects.get(manifest.object)))
    shown = newest(own)
    if shown is None:
        return Row(expected.part, expected.host, expected.prefix, "", 0, 0, "", "there is no snapshot")
    missing = "there is no snapshot whose object agrees with its manifest"
    if good is not None:
        age = int((now - good.created_at()).total_seconds())
        late = bool(good.max_age_seconds) and age > good.max_age_seconds
        missing = f"the newest is {duration(age)} old, and {duration(good.max_age_seconds)} are allowed" if late else ""
    return Row(
        expected.part,
        shown.host,
        shown.object,
        shown.created,
        int((now - shown.created_at()).total_seconds()),
        shown.size_bytes,
        disagreement(shown, objects.get(shown.object)) or "ok",
        missing,
    )


def findings(
    rows: Iterable[Row], manifests: Iterable[Manifest], unreadable: Mapping[str, str], objects: Mapping[str, Entry]
) -> list[str]:
    """What is due and missing, manifests that disagree with their objects, and manifests that cannot be read."""
    found = [f"{' '.join(filter(None, (entry.part, entry.host)))}: {entry.missing}" for entry in rows if entry.missing]
    found += [
        f"{manifest.object}: {reason}"
        for manifest in manifests
        if (reason := disagreement(manifest, objects.get(manifest.object)))
    ]
    found += [f"{key}: {fault}" for key, fault in sorted(unreadable.items())]
    return found


def recovery(
    expected: Iterable[Expected],
    manifests: Sequence[Manifest],
    objects: Mapping[str, Entry],
    environment: str,
) -> dict[str, object]:
    """What a restore of the whole site starts from: the newest good snapshot of each series, of etcd that of any host.

    `written_at`, when the bucket was last written to, is the last sign of life of the lost site.
    """
    points: dict[tuple[str, str], Manifest] = {}
    missing = []
    series = [entry for entry in expected if entry.part != "config" and not entry.prefix.startswith(NOT_RESTORED)]
    for key in dict.fromkeys((entry.part, entry.prefix) for entry in series):
        good = newest(
            manifest
            for manifest in manifests
            if Expected(key[0], prefix=key[1]).matches(manifest)
            and manifest.environment == environment
            and not disagreement(manifest, objects.get(manifest.object))
        )
        if good is None:
            missing.append(f"{key[0]}: there is no good snapshot of {environment} below {key[1] or f'{key[0]}/'}")
        else:
            points[key] = good
    written = max((datetime.fromisoformat(entry.modified) for entry in objects.values()), default=None)
    names = ("part", "host", "object", "created", "size_bytes")
    return {
        "points": [{name: getattr(point, name) for name in names} for point in points.values()],
        "missing": missing,
        "written_at": f"{written.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if written else "",
    }


def restore_report(plan: Mapping[str, Any], newest_row: str, ended: str, environment: str) -> dict[str, object]:
    """RPO and RTO of each part of a restored site.

    The recovery point objective is measured against the last sign of life of the lost site, the recovery time from the
    start of the restore, with the time in which it was interrupted.
    """
    parts = []
    for part, restored in plan["restored"].items():
        created = [point["created"] for point in plan["points"] if point["part"] == part]
        point = newest_row if part == "postgresql" else min(created, default="")
        parts.append(
            {
                "part": part,
                "recovery_point": point,
                "rpo_seconds": max(seconds_between(point, plan["written_at"]), 0) if point else None,
                "rto_seconds": seconds_between(plan["began"], restored),
                "size_bytes": sum(entry["size_bytes"] for entry in plan["points"] if entry["part"] == part),
            }
        )
    return {
        "environment": environment,
        "began": plan["began"],
        "ended": ended,
        "site_rto_seconds": seconds_between(plan["began"], ended),
        "last_sign_of_life": plan["written_at"],
        "points": plan["points"],
        "parts": parts,
    }


def seconds_between(earlier: str, later: str) -> int:
    return int((_time(later) - _time(earlier)).total_seconds())


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of a table, with a line for each part that nothing saves."""
    header = ("part", "newest", "age", "size", "host", "manifest", "missing")
    lines = [header]
    present = set()
    for entry in rows:
        present.add(entry.part)
        known = bool(entry.created)
        lines.append(
            (
                entry.part,
                entry.newest or "-",
                duration(entry.age_seconds) if known else "-",
                size(entry.size_bytes) if known else "-",
                entry.host or "-",
                entry.manifest or "-",
                entry.missing or "-",
            )
        )
    lines += [(part, "not backed up", "-", "-", "-", "-", "-") for part in PARTS if part not in present]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def duration(seconds: int) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds // 86400} d"
    return f"{seconds // 3600} h" if seconds >= 2 * 3600 else f"{max(seconds, 0) // 60} min"


def size(count: int) -> str:
    return next((f"{count / limit:.1f} {unit}" for limit, unit in UNITS if count >= limit), f"{count} B")


def report(rows: Iterable[Row], found: Sequence[str], began: datetime) -> dict[str, object]:
    """The listing as JSON, with the time of the run that made it."""
    rows = list(rows)
    return {
        "began": f"{began.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "snapshots": [asdict(entry) for entry in rows],
        "not_backed_up": [part for part in PARTS if part not in {entry.part for entry in rows}],
        "findings": list(found),
    }
