"""All questions to an environment, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import capacity, database, database_backup, edge, machines, network, secrets, specs, storage, versions
from .model import Environment, Fault


def pure_faults(environment: Environment) -> list[Fault]:
    """What can be said without asking anybody."""
    found: Iterable[Fault] = (
        fault
        for check in (
            specs.faults,
            machines.faults,
            network.faults,
            versions.faults,
            versions.image_faults,
            secrets.faults,
            edge.faults,
            database.faults,
            database_backup.faults,
            storage.faults,
        )
        for fault in check(environment)
    )
    return sorted(set(found))


def cloud_faults(environment: Environment, cloud: Mapping[str, list[capacity.Json]]) -> list[Fault]:
    """What the cloud has to be asked for; `cloud` holds its answers to `capacity.QUESTIONS`."""
    return sorted(set(capacity.faults(environment, cloud)))
