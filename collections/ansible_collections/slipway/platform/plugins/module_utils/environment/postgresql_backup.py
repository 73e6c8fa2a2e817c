"""PostgreSQL backups: buckets, access keys, retention and schedule."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Environment, Fault, Origin, listed, show
from .specs import SECRETS_FILE

GROUP = "postgresql"
BUCKET, SECOND = "postgresql_backup_bucket", "postgresql_backup_second_bucket"
SCHEDULE = "postgresql_backup_schedule"


def enabled(environment: Environment) -> bool:
    return bool(environment.members(GROUP)) and environment.group_value(GROUP, "postgresql_backup_enabled") is True


def faults(environment: Environment) -> Iterator[Fault]:
    if not enabled(environment):
        return
    yield from secrets(environment)
    yield from schedule(environment)
    yield from second_bucket(environment)


def secrets(environment: Environment) -> Iterator[Fault]:
    vault = Origin(f"{environment.path}/{SECRETS_FILE}")
    missing = [
        name for name in ("object_storage_access_key", "object_storage_secret_key") if not environment.is_set(name)
    ]
    if missing:
        yield Fault(
            vault,
            f"{listed(missing)}: missing, which the database needs to write its backups",
            "Create a pair of keys in the provider's console (docs/runbooks/create_secrets.md), or set "
            "postgresql_backup_enabled to false.",
            absent=True,
        )


def schedule(environment: Environment) -> Iterator[Fault]:
    jobs = next(role.options[SCHEDULE]["default"] for role in environment.roles if SCHEDULE in role.options)
    value = environment.group_value(GROUP, SCHEDULE)
    if not isinstance(value, dict):
        return
    origin = environment.group_value_origin(GROUP, SCHEDULE)
    if missing := sorted(set(jobs) - set(value)):
        yield Fault(origin, f"{SCHEDULE}: no time for {listed(missing)}", f"Set all of {listed(sorted(jobs))}.")
    for name in sorted(set(value) - set(jobs)):
        yield Fault(origin, f"{SCHEDULE}: {show(name)} is no job", f"Choose from {listed(sorted(jobs))}.")


def second_bucket(environment: Environment) -> Iterator[Fault]:
    bucket = environment.group_value(GROUP, SECOND)
    if not isinstance(bucket, dict) or not bucket:
        return
    origin = environment.group_value_origin(GROUP, SECOND)
    if missing := [key for key in ("endpoint", "region", "name") if not bucket.get(key)]:
        yield Fault(origin, f"{SECOND}: has no {listed(missing)}", "A bucket needs all of endpoint, region and name.")
        return
    first = [environment.text("platform_object_storage_endpoint"), environment.text("platform_object_storage_bucket")]
    if [bucket["endpoint"], bucket["name"]] == first:
        yield Fault(
            origin, f"{SECOND}: is the same as the first", "Choose another bucket, preferably of another provider."
        )
    if missing := [
        name
        for name in ("postgresql_backup_second_access_key", "postgresql_backup_second_secret_key")
        if not environment.is_set(name)
    ]:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(missing)}: missing for {SECOND}",
            "Add the pair of keys.",
            absent=True,
        )
