"""Object storage: locks and expiry of the versions in buckets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .model import Environment, Fault, Origin, show
from .specs import uses_object_storage

GROUPS = ("ceph", "object_storage")
BUCKETS = "ceph_s3_buckets"


def faults(environment: Environment) -> Iterator[Fault]:
    """An expired version would be deleted while it is locked, which the store rejects."""
    if uses_object_storage(environment):
        lock, expire = "platform_object_storage_lock_days", "platform_object_storage_expire_days"
        origin = environment.value_origin(expire)
        yield from expiry(origin, expire, environment.value(expire), environment.value(lock))
    for group in GROUPS:
        buckets = environment.group_value(group, BUCKETS) if environment.members(group) else []
        for bucket in buckets if isinstance(buckets, list) else ():
            if isinstance(bucket, dict):
                origin, name = environment.group_value_origin(group, BUCKETS), show(bucket.get("name"))
                days = bucket.get("expire_noncurrent_days")
                yield from expiry(origin, f"{BUCKETS}: {name}: expire_noncurrent_days", days, bucket.get("lock_days"))
                if bool(bucket.get("lock_mode")) != bool(bucket.get("lock_days")):
                    problem = f"{BUCKETS}: {name}: only one of lock_mode and lock_days is set"
                    yield Fault(origin, problem, "Set both or neither.")


def expiry(origin: Origin, name: str, expire: Any, lock: Any) -> Iterator[Fault]:
    if isinstance(expire, int) and isinstance(lock, int) and 0 < expire <= lock:
        yield Fault(
            origin,
            f"{name}: {expire} is not more than the {lock} days of the lock",
            "Choose more days, or a shorter lock.",
        )
