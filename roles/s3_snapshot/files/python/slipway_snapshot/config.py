"""Files of a host that neither git nor a role can rebuild, encrypted to the escrow's public key."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError, faults_of
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import Manifest
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

from slipway_snapshot.pipeline import ProgramError, encryption, stream
from slipway_snapshot.run import Run
from slipway_snapshot.series import expired, key_of

PREFIX = "config/"
SUFFIX = ".tar.zst.age"


def matching(patterns: list[str]) -> list[str]:
    """The paths below / that the patterns match; a pattern without one is an error: its file would be missed later."""
    found: list[str] = []
    for pattern in patterns:
        paths = sorted(str(path) for path in Path("/").glob(pattern.removeprefix("/")))
        if not paths:
            raise SnapshotError(f"{pattern}: no such file on this host. Correct s3_snapshot_config_paths")
        found += paths
    return found


def execute(run: Run) -> None:
    paths = matching(run.options["paths"])
    # Relative to /, without the warning about it.
    tar = ["tar", "--create", "--file=-", "--directory=/", *(path.removeprefix("/") for path in paths)]

    def save() -> Manifest:
        key = key_of(PREFIX, run.host, SUFFIX, run.now())
        return run.store(key, stream([tar, *encryption(run.recipient)]), requires=("escrow identity",))

    try:
        # RKE2 writes its certificates again while servers join.
        manifest = wait_until(
            "the files of this host cannot be read",
            save,
            lambda manifest: (),
            timeout_seconds=60,
            interval_seconds=2,
            passing=ProgramError,
        )
    except NotMet as error:
        raise SnapshotError(str(error)) from error
    objects = {entry.key: entry for entry in run.bucket.list_objects(f"{PREFIX}{run.host}-")}
    manifests, faults = run.bucket.manifests(f"{PREFIX}{run.host}-")
    run.record_newest([manifest])
    run.prune_objects(expired(objects, PREFIX, run.host, run.options["keep"]))
    if problems := [*faults_of(manifests, objects), *(f"{key}: {fault}" for key, fault in faults.items())]:
        raise SnapshotError("; ".join(problems))
