"""Snapshots in the bucket: the keys of their writers."""

from __future__ import annotations

from collections.abc import Iterator

from .model import Environment, Fault, Origin, listed
from .specs import SECRETS_FILE

KEYS = ("etcd", "ceph", "config", "reader")
"""Writers, and the reader, with keys of their own; PostgreSQL's are checked with its backups."""


def faults(environment: Environment) -> Iterator[Fault]:
    if environment.value("s3_snapshot_enabled") is False:
        return
    names = [f"object_storage_{name}_{kind}_key" for name in KEYS for kind in ("access", "secret")]
    if missing := [name for name in names if not environment.is_set(name)]:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(missing)}: missing, and snapshots are written and listed with them",
            "Create pairs of keys in the provider's console (docs/runbooks/create_secrets.md), or set "
            "s3_snapshot_enabled to false.",
            absent=True,
        )
