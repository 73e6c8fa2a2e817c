"""Backups of PostgreSQL, which pgBackRest makes and verifies: a manifest for each, for the listing of all parts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.output import error_line
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError, faults_of
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import format_time

from slipway_snapshot.run import Run

INFO = ["runuser", "--user", "postgres", "--", "pgbackrest", "--stanza=main", "--repo=1", "--output=json", "info"]


def backups_of(info: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The backups without an error, from the output of `pgbackrest info`."""
    return [backup for stanza in info for backup in stanza.get("backup", []) if not backup.get("error")]


def key_of(prefix: str, label: str) -> str:
    """pgBackRest's own manifest of a backup, which it writes last."""
    return f"{prefix}backup/main/{label}/backup.manifest"


def read_info() -> list[Mapping[str, Any]]:
    done = subprocess.run(INFO, capture_output=True, text=True, errors="replace", check=False, timeout=600, cwd="/")
    if done.returncode != 0:
        raise SnapshotError(f"pgbackrest info failed ({done.returncode}): {error_line(done.stderr or done.stdout)}")
    return list(json.loads(done.stdout))


def execute(run: Run) -> None:
    prefix = run.options["prefix"]
    backups = backups_of(read_info())
    manifests, faults = run.bucket.manifests(f"{prefix}backup/main/")
    objects = {}
    for backup in backups:
        key = key_of(prefix, backup["label"])
        entry = run.bucket.entry(key)
        if entry is None:
            raise SnapshotError(f"{key}: pgBackRest lists the backup, and the bucket does not have it")
        objects[key] = entry
        if key not in manifests:
            versions = {"pgbackrest": backup["backrest"]["version"]}
            manifests[key] = run.manifest(
                key,
                entry.size_bytes,
                run.bucket.digest(key),
                created=format_time(backup["timestamp"]["stop"]),
                software=versions,
                requires=("postgresql_backup_passphrase",),
                etag=entry.etag,
            )
            run.bucket.write_manifest(manifests[key])
    run.prune_manifests(sorted(set(manifests) - set(objects)))
    run.record_newest(manifest for key, manifest in manifests.items() if key in objects)
    if problems := [*faults_of(manifests, objects), *(f"{key}: {fault}" for key, fault in faults.items())]:
        raise SnapshotError("; ".join(problems))
