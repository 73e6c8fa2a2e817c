"""Run all checks of an environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import (
    capacity,
    ceph,
    chart_support,
    gitlab_runner,
    load_balancer,
    machines,
    network,
    object_storage,
    postgresql,
    postgresql_backup,
    secrets,
    snapshots,
    specs,
    versions,
)
from .model import Environment, Fault


def pure_faults(environment: Environment) -> list[Fault]:
    """Faults that need no access to the cloud."""
    found: Iterable[Fault] = (
        fault
        for check in (
            specs.faults,
            machines.faults,
            network.faults,
            versions.faults,
            versions.image_faults,
            chart_support.faults,
            secrets.faults,
            load_balancer.faults,
            object_storage.faults,
            postgresql.faults,
            postgresql_backup.faults,
            ceph.faults,
            snapshots.faults,
            gitlab_runner.faults,
        )
        for fault in check(environment)
    )
    return sorted(set(found))


def cloud_faults(environment: Environment, cloud: Mapping[str, list[capacity.Json]]) -> list[Fault]:
    """Faults that need the cloud's data; `cloud` holds `capacity.COLLECTIONS` as the API returns them."""
    return sorted(set(capacity.faults(environment, cloud)))
