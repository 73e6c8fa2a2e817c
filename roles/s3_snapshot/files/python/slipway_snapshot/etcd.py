"""Snapshots of etcd, which RKE2 makes and uploads. It reports no failed upload, so each is looked up in the bucket."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from ansible_collections.slipway.platform.plugins.module_utils import rke2_read
from ansible_collections.slipway.platform.plugins.module_utils.output import shortened
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    Manifest,
    disagreement,
    fingerprint,
    format_time,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

from slipway_snapshot.run import Run

PREFIX = "etcd/"
METADATA = "/.metadata/"
"""RKE2's own descriptions of its snapshots."""
CANARY = "/api/v1/namespaces/kube-system/configmaps"
CANARY_NAME = "slipway-canary"
"""A ConfigMap with the time of the last run: a restore drill reads it from the restored data."""
UPLOAD_SECONDS = 900
"""A local snapshot younger than this may still be uploading; RKE2's own limit is 5 minutes."""
SAVE_SECONDS = 600
CANARY_SECONDS = 60
"""For an API server that restarts or is busy."""
ON_DEMAND = "on-demand"
"""Name of the snapshots that a person or a pipeline requests; that many are kept on each host."""
ON_DEMAND_KEPT = 5
PROGRAM_PATH = "/usr/local/bin:/opt/rke2/bin:/usr/bin"


@dataclass(frozen=True)
class LocalFile:
    path: Path
    size_bytes: int
    modified: float


@dataclass
class Plan:
    """What is to be done with the snapshots of one node."""

    verify: list[Entry] = field(default_factory=list)
    """Objects that no valid manifest describes."""
    prune: list[str] = field(default_factory=list)
    """Objects that RKE2's retention deleted, whose manifests are left."""
    faults: list[str] = field(default_factory=list)


def snapshot_time(name: str, node: str) -> int | None:
    """When a snapshot of this node was made, by its name `<name>-<node>-<seconds>[.zip]`; None if it is of another."""
    found = re.search(rf"-{re.escape(node)}-(\d{{9,}})(?:\.zip)?$", name)
    return int(found[1]) if found else None


def snapshot_series(name: str, node: str) -> str:
    """The name of a snapshot without its time: RKE2's retention counts those of the same name."""
    return re.sub(rf"-{re.escape(node)}-\d{{9,}}(?:\.zip)?$", "", name)


def own_objects(entries: Iterable[Entry], node: str) -> dict[str, Entry]:
    return {
        entry.key: entry
        for entry in entries
        if METADATA not in f"/{entry.key}" and snapshot_time(entry.key, node) is not None
    }


def plan(
    local: Mapping[str, LocalFile],
    objects: Mapping[str, Entry],
    manifests: Mapping[str, Manifest],
    node: str,
    now: float,
) -> Plan:
    """Compare the local snapshots, the objects of this node and their manifests."""
    planned = Plan()
    times = {key: snapshot_time(key, node) or 0 for key in {*objects, *manifests}}
    oldest: dict[str, int] = {}
    for key in objects:
        of = snapshot_series(key, node)
        oldest[of] = min(oldest.get(of, times[key]), times[key])
    for key, entry in sorted(objects.items()):
        file = local.get(key.removeprefix(PREFIX))
        if entry.size_bytes == 0:
            planned.faults.append(f"{key}: the object has 0 bytes. Delete it with rke2 etcd-snapshot delete")
        elif file is not None and file.size_bytes != entry.size_bytes:
            planned.faults.append(
                f"{key}: the object has {entry.size_bytes} bytes, and the local snapshot {file.size_bytes}. "
                "Delete both with rke2 etcd-snapshot delete"
            )
        elif key not in manifests:
            planned.verify.append(entry)
        elif reason := disagreement(manifests[key], entry):
            planned.faults.append(f"{key}: {reason}")
    for key in sorted(set(manifests) - set(objects)):
        # Retention deletes the oldest of a name first.
        if times[key] < oldest.get(snapshot_series(key, node), 0):
            planned.prune.append(key)
        else:
            planned.faults.append(f"{key}: its object was deleted, and older snapshots of this host were not")
    newest = max((times[key] for key in objects), default=0)
    for name, file in sorted(local.items()):
        made = snapshot_time(name, node) or 0
        if f"{PREFIX}{name}" not in objects and made > newest and now - file.modified > UPLOAD_SECONDS:
            planned.faults.append(
                f"{PREFIX}{name}: the snapshot exists on this host and was not uploaded. "
                "See journalctl --unit rke2-server"
            )
    return planned


def list_local(folder: Path, node: str) -> dict[str, LocalFile]:
    if not folder.is_dir():
        return {}
    return {
        path.name: LocalFile(path, path.stat().st_size, path.stat().st_mtime)
        for path in folder.iterdir()
        if path.is_file() and snapshot_time(path.name, node) is not None
    }


def release() -> dict[str, str]:
    """The version of the installed RKE2, which a restore must not be older than."""
    program = shutil.which("rke2", path=PROGRAM_PATH)
    if program is None:
        return {}
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, errors="replace", check=False, timeout=60
    )
    found = re.search(r"v\d+\.\d+\.\d+\S*\+rke2r\d+", done.stdout)
    return {"rke2": found[0]} if found else {}


def rke2_snapshots(*words: str) -> None:
    program = shutil.which("rke2", path=PROGRAM_PATH)
    if program is None:
        raise SnapshotError("rke2: is not installed on this host. Run playbooks/rke2.yml")
    command = [program, "etcd-snapshot", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=SAVE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise SnapshotError(f"rke2 etcd-snapshot {words[0]} did not end within {SAVE_SECONDS} s") from error
    if done.returncode != 0:
        reason = shortened(done.stderr or done.stdout, 300)
        raise SnapshotError(f"rke2 etcd-snapshot {words[0]} failed ({done.returncode}): {reason}")


def save(on_demand: bool) -> None:
    """Take a snapshot: with the name and retention of the scheduled ones, or with its own, which displaces none."""
    if on_demand:
        rke2_snapshots("save", "--name", ON_DEMAND)
        rke2_snapshots("prune", "--name", ON_DEMAND, "--snapshot-retention", str(ON_DEMAND_KEPT))
    else:
        rke2_snapshots("save")


def verified_digest(run: Run, entry: Entry, file: LocalFile | None) -> str:
    """The SHA-256 of an object: of the local file if the store's MD5 shows that it is the same, else of a download."""
    if file is not None:
        content = file.path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if entry.etag == hashlib.md5(content, usedforsecurity=False).hexdigest():
            return digest
        if run.bucket.digest(entry.key) != digest:
            raise SnapshotError(f"{entry.key}: the object differs from the local snapshot of the same size")
        return digest
    return run.bucket.digest(entry.key)


def write_canary(now: float) -> None:
    """Write the time into the cluster, so that each later snapshot holds it."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CANARY_NAME, "namespace": "kube-system"},
        "data": {"written": format_time(now)},
    }
    try:
        kubeconfig = rke2_read.parse_kubeconfig((rke2_read.ETC / "rke2/rke2.yaml").read_text())
        context = rke2_read.tls_context(
            kubeconfig["certificate-authority"], kubeconfig["client-certificate"], kubeconfig["client-key"]
        )
    except (OSError, rke2_read.ReadError) as error:
        raise SnapshotError(f"the canary {CANARY_NAME} cannot be written to the Kubernetes API: {error}") from error

    def write() -> tuple[int, str]:
        status, text = rke2_read.request(
            kubeconfig["server"], context, f"{CANARY}/{CANARY_NAME}", method="PUT", body=body
        )
        if status == HTTPStatus.NOT_FOUND:
            return rke2_read.request(kubeconfig["server"], context, CANARY, body=body)
        return status, text

    def unmet(answer: tuple[int, str]) -> list[str]:
        status, text = answer
        if status in (HTTPStatus.OK, HTTPStatus.CREATED):
            return []
        reason = f"{status} {text[:200]}"
        # A conflict passes too: another server created it at the same time.
        if status in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS) or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return [reason]
        raise SnapshotError(f"the canary {CANARY_NAME} was rejected by the Kubernetes API: {reason}")

    try:
        wait_until(
            f"the canary {CANARY_NAME} cannot be written to the Kubernetes API",
            write,
            unmet,
            timeout_seconds=CANARY_SECONDS,
            interval_seconds=1,
            passing=(OSError, HTTPException),
        )
    except NotMet as error:
        raise SnapshotError(str(error)) from error


def canary_time(content: str) -> str | None:
    """The time in the canary as etcd holds it, in Kubernetes' binary form."""
    found = re.search(r"written\W+(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)", content)
    return found[1] if found else None


def execute(run: Run) -> None:
    """Write a manifest for each snapshot of this host that is complete in the bucket; report the others.

    Takes one where the run is to save now, and for a host that has none in the bucket: RKE2 takes its first when its
    schedule is next due. Until then nothing could be restored, and a fault of its upload would stay unknown. RKE2 does
    not upload again what failed, so this also ends such a fault once its cause is corrected.
    """
    folder, token_path = Path(run.options["snapshot_dir"]), Path(run.options["token_path"])
    objects = own_objects(run.bucket.list_objects(PREFIX), run.host)
    if run.saves_now or not objects:
        write_canary(run.now())
        save(run.saves_now)
        known, objects = objects, own_objects(run.bucket.list_objects(PREFIX), run.host)
        if not objects.keys() - known.keys():
            raise SnapshotError("a snapshot was saved and not uploaded. See journalctl --unit rke2-server")
    local = list_local(folder, run.host)
    manifests, faults = run.bucket.manifests(PREFIX)
    own = {key: manifest for key, manifest in manifests.items() if snapshot_time(key, run.host) is not None}
    planned = plan(local, objects, own, run.host, run.now())
    planned.faults += [f"{key}: {fault}" for key, fault in faults.items() if snapshot_time(key, run.host) is not None]
    software = release()
    for entry in planned.verify:
        try:
            digest = verified_digest(run, entry, local.get(entry.key.removeprefix(PREFIX)))
        except SnapshotError as error:
            planned.faults.append(str(error))
            continue
        manifest = run.manifest(
            entry.key,
            entry.size_bytes,
            digest,
            created=format_time(snapshot_time(entry.key, run.host) or 0),
            software=software,
            requires=("rke2_token",),
            token_fingerprint=fingerprint(token_path.read_text()),
            etag=entry.etag,
        )
        run.bucket.write_manifest(manifest)
        own[entry.key] = manifest
    run.prune_manifests(planned.prune)
    run.record_newest(manifest for key, manifest in own.items() if key in objects)
    try:
        write_canary(run.now())
    except SnapshotError as error:
        planned.faults.append(str(error))
    if planned.faults:
        raise SnapshotError("; ".join(planned.faults))
