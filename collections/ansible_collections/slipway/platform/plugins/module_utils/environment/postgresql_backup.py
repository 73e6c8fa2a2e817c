"""PostgreSQL backups: buckets, access keys, retention and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .model import Environment, Fault, Origin, listed, show
from .specs import SECRETS_FILE

GROUP = "postgresql"
BUCKET, SECOND = "postgresql_backup_bucket", "postgresql_backup_second_bucket"
SCHEDULE = "postgresql_backup_schedule"
RETENTION = "postgresql_backup_retention_days"
FEWEST_DAYS = 7
"""Full backups are weekly, and a restore starts from a full backup."""


def enabled(environment: Environment) -> bool:
    return bool(environment.members(GROUP)) and environment.group_value(GROUP, "postgresql_backup_enabled") is True


def faults(environment: Environment) -> Iterator[Fault]:
    if not enabled(environment):
        return
    yield from secrets(environment)
    yield from retention(environment)
    yield from schedule(environment)
    yield from second_bucket(environment)


def is_set(environment: Environment, name: str) -> bool:
    """Whether a secret is set; `specs` reports one that cannot be resolved."""
    setting = environment.settings.get(name)
    return setting is not None and (bool(setting.error) or bool(setting.value))


def secrets(environment: Environment) -> Iterator[Fault]:
    vault = Origin(f"{environment.path}/{SECRETS_FILE}")
    missing = [
        name for name in ("object_storage_access_key", "object_storage_secret_key") if not is_set(environment, name)
    ]
    if missing:
        yield Fault(
            vault,
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing, which the database needs to write its "
            "backups; create a pair of keys in the provider's console (docs/runbooks/create_secrets.md), or set "
            "postgresql_backup_enabled to false.",
        )


def retention(environment: Environment) -> Iterator[Fault]:
    bucket = environment.group_value(GROUP, SECOND)
    declared: list[tuple[str, Any]] = [(RETENTION, environment.group_value(GROUP, RETENTION))]
    if isinstance(bucket, dict) and "retention_days" in bucket:
        declared.append((SECOND, bucket["retention_days"]))
    for name, days in declared:
        if isinstance(days, int) and days < FEWEST_DAYS:
            yield Fault(
                environment.group_value_origin(GROUP, name),
                f"{name} is {days}; {FEWEST_DAYS} or more are needed, because full backups are weekly.",
            )


def schedule(environment: Environment) -> Iterator[Fault]:
    jobs = next(role.options[SCHEDULE]["default"] for role in environment.roles if SCHEDULE in role.options)
    value = environment.group_value(GROUP, SCHEDULE)
    if not isinstance(value, dict):
        return
    origin = environment.group_value_origin(GROUP, SCHEDULE)
    if missing := sorted(set(jobs) - set(value)):
        yield Fault(origin, f"{SCHEDULE} has no time for {listed(missing)}; set all of {listed(sorted(jobs))}.")
    for name in sorted(set(value) - set(jobs)):
        yield Fault(origin, f"{SCHEDULE} has {show(name)}, which is no job; choose from {listed(sorted(jobs))}.")
    for name, when in sorted(value.items()):
        if name in jobs and not (isinstance(when, str) and when.strip()):
            yield Fault(origin, f"{SCHEDULE} has {show(when)} for {name}; write a systemd OnCalendar expression.")


def second_bucket(environment: Environment) -> Iterator[Fault]:
    bucket = environment.group_value(GROUP, SECOND)
    if not isinstance(bucket, dict) or not bucket:
        return
    origin = environment.group_value_origin(GROUP, SECOND)
    if missing := [key for key in ("endpoint", "region", "name") if not bucket.get(key)]:
        yield Fault(origin, f"{SECOND} has no {listed(missing)}; a bucket needs all of endpoint, region and name.")
        return
    if urlsplit(str(bucket["endpoint"])).scheme != "https":
        yield Fault(origin, f"{SECOND} has the endpoint {show(bucket['endpoint'])}; write https://.")
    first = [environment.text("platform_object_storage_endpoint"), environment.text("platform_object_storage_bucket")]
    if [bucket["endpoint"], bucket["name"]] == first:
        yield Fault(
            origin, f"{SECOND} is the same as the first; choose another bucket, preferably of another provider."
        )
    if missing := [
        name
        for name in ("postgresql_backup_second_access_key", "postgresql_backup_second_secret_key")
        if not is_set(environment, name)
    ]:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing for {SECOND}; add the pair of keys.",
        )
