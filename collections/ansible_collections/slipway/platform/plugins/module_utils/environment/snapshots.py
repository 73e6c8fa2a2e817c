"""Snapshots in the bucket: writers, keys, the public key of the escrow, RKE2's schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import PARTS

from .model import Environment, Fault, Origin, listed, show
from .postgresql_backup import is_set
from .specs import SECRETS_FILE

WRITERS = "platform_object_storage_writers"
ESCROW = "platform_escrow_public_key"
RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
"""A public key of age: bech32, which has neither 1, b, i nor o."""
KEYS = ("etcd", "ceph", "config", "reader")
"""Writers, and the reader, with keys of their own; PostgreSQL's are checked with its backups."""


def faults(environment: Environment) -> Iterator[Fault]:
    yield from writers(environment)
    yield from escrow(environment)
    if environment.value("s3_snapshot_enabled") is not False:
        yield from keys(environment)


def writers(environment: Environment) -> Iterator[Fault]:
    value = environment.value(WRITERS)
    if not isinstance(value, dict):
        return
    for part in sorted(set(map(str, value)) - set(PARTS)):
        yield environment.fault(WRITERS, f"{WRITERS} has {show(part)}, which is no part; choose from {listed(PARTS)}.")


def escrow(environment: Environment) -> Iterator[Fault]:
    setting = environment.settings.get(ESCROW)
    if setting is None or setting.error:
        return  # `secrets` reports a missing one
    if not isinstance(setting.value, str) or not RECIPIENT.fullmatch(setting.value):
        yield Fault(
            setting.origin,
            f"{ESCROW} is {show(setting.value)}, which is no public key of age; remove it and run create_secrets.",
        )


def keys(environment: Environment) -> Iterator[Fault]:
    names = [f"object_storage_{name}_{kind}_key" for name in KEYS for kind in ("access", "secret")]
    if missing := [name for name in names if not is_set(environment, name)]:
        yield Fault(
            Origin(f"{environment.path}/{SECRETS_FILE}"),
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing, which snapshots are written and listed "
            "with; create pairs of keys in the provider's console (docs/runbooks/create_secrets.md), or set "
            "s3_snapshot_enabled to false.",
        )
