"""Backups of the database: where they go, with which keys, how far back they reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .model import Environment, Fault, Place, listed, show
from .specs import SECRETS_FILE

GROUP = "postgresql"
BUCKET, SECOND = "postgresql_backup_bucket", "postgresql_backup_second_bucket"
SCHEDULE = "postgresql_backup_schedule"
RETENTION = "postgresql_backup_retention_days"
FEWEST_DAYS = 7
"""Full backups are weekly, and recovery begins from one."""


def wanted(environment: Environment) -> bool:
    return bool(environment.members(GROUP)) and environment.tuned(GROUP, "postgresql_backup_enabled") is True


def faults(environment: Environment) -> Iterator[Fault]:
    if not wanted(environment):
        return
    yield from secrets(environment)
    yield from retention(environment)
    yield from schedule(environment)
    yield from second(environment)


def given(environment: Environment, name: str) -> bool:
    """Whether a secret is there; one that cannot be read is somebody else's fault."""
    setting = environment.settings.get(name)
    return setting is not None and (bool(setting.error) or bool(setting.value))


def secrets(environment: Environment) -> Iterator[Fault]:
    vault = Place(f"{environment.path}/{SECRETS_FILE}")
    lacking = [
        name for name in ("object_storage_access_key", "object_storage_secret_key") if not given(environment, name)
    ]
    if lacking:
        yield Fault(
            vault,
            f"{listed(lacking)} {'is' if len(lacking) == 1 else 'are'} missing, with which the database writes its "
            "backups; make a pair of keys in the provider's console (docs/runbooks/create_secrets.md), or set "
            "postgresql_backup_enabled to false.",
        )


def retention(environment: Environment) -> Iterator[Fault]:
    bucket = environment.tuned(GROUP, SECOND)
    found: list[tuple[str, Any]] = [(RETENTION, environment.tuned(GROUP, RETENTION))]
    if isinstance(bucket, dict) and "retention_days" in bucket:
        found.append((SECOND, bucket["retention_days"]))
    for name, days in found:
        if isinstance(days, int) and days < FEWEST_DAYS:
            yield Fault(
                environment.tuned_place(GROUP, name),
                f"{name} keeps {days} days; {FEWEST_DAYS} or more are needed, because full backups are weekly.",
            )


def schedule(environment: Environment) -> Iterator[Fault]:
    known = next(role.options[SCHEDULE]["default"] for role in environment.roles if SCHEDULE in role.options)
    value = environment.tuned(GROUP, SCHEDULE)
    if not isinstance(value, dict):
        return
    place = environment.tuned_place(GROUP, SCHEDULE)
    if missing := sorted(set(known) - set(value)):
        yield Fault(place, f"{SCHEDULE} does not say when {listed(missing)}; a schedule of your own names all of them.")
    for name in sorted(set(value) - set(known)):
        yield Fault(place, f"{SCHEDULE} has {show(name)}, which nothing runs; it knows {listed(sorted(known))}.")
    for name, when in sorted(value.items()):
        if name in known and not (isinstance(when, str) and when.strip()):
            yield Fault(place, f"{SCHEDULE} says {show(when)} for {name}; write a time as systemd's OnCalendar.")


def second(environment: Environment) -> Iterator[Fault]:
    bucket = environment.tuned(GROUP, SECOND)
    if not isinstance(bucket, dict) or not bucket:
        return
    place = environment.tuned_place(GROUP, SECOND)
    if lacking := [word for word in ("endpoint", "region", "name") if not bucket.get(word)]:
        yield Fault(place, f"{SECOND} has no {listed(lacking)}; a bucket needs all of endpoint, region and name.")
        return
    if urlsplit(str(bucket["endpoint"])).scheme != "https":
        yield Fault(
            place, f"{SECOND} has the endpoint {show(bucket['endpoint'])}; write it as https://name, encrypted alone."
        )
    first = [environment.text("platform_object_storage_endpoint"), environment.text("platform_object_storage_bucket")]
    if [bucket["endpoint"], bucket["name"]] == first:
        yield Fault(place, f"{SECOND} is the first one again; name another bucket, of another provider best.")
    if lacking := [
        name
        for name in ("postgresql_backup_second_access_key", "postgresql_backup_second_secret_key")
        if not given(environment, name)
    ]:
        yield Fault(
            Place(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(lacking)} {'is' if len(lacking) == 1 else 'are'} missing for {SECOND}; add the pair of keys.",
        )
