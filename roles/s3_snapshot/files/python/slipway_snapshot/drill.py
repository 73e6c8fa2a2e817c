"""Restore drills beside production: the newest snapshot is restored into a directory of its own, read, and removed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import ceph_backup
from ansible_collections.slipway.platform.plugins.module_utils.output import error_line
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    Manifest,
    fingerprint,
    newest,
    parse_time,
)

from slipway_snapshot import etcd
from slipway_snapshot.pipeline import Counted, decryption, run_command, stream
from slipway_snapshot.restore import private_path, read_manifest
from slipway_snapshot.run import Run
from slipway_snapshot.state import STATE

Details = dict[str, Any]
START_SECONDS = 60
ISOLATED = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Runs a program in a network namespace of its own."""
CANARY = "/configmaps/kube-system/slipway-canary"
"""End of the key of the ConfigMap that `etcd.write_canary` writes."""


def choose(run: Run, prefix: str) -> Manifest:
    """The newest snapshot of this host below the prefix, whose object agrees with its manifest."""
    manifests, _ = run.bucket.manifests(prefix)
    found = newest(manifest for manifest in manifests.values() if manifest.host == run.host)
    if found is None:
        raise SnapshotError(f"the bucket holds no snapshot of this host below {prefix}")
    return read_manifest(run, found.object)


def fetch(run: Run, manifest: Manifest, path: Path, programs: list[list[str]] | None = None) -> None:
    """Download an object, through programs that decrypt it, and compare it with its manifest."""
    counted = Counted(run.bucket.download(manifest.object))
    with path.open("wb") as file:
        for block in stream(programs, counted) if programs else counted:
            file.write(block)
    if counted.sha256 != manifest.sha256:
        raise SnapshotError(f"{manifest.object}: its SHA-256 is {counted.sha256}, the manifest has {manifest.sha256}")


def etcd_programs(processes: Path = Path("/proc")) -> dict[str, Path]:
    """The programs beside the running etcd, in the file system of its container: they have the cluster's version."""
    for process in processes.glob("[0-9]*"):
        with suppress(OSError):
            program = (process / "exe").readlink()
            if program.name == "etcd":
                folder = process / "root" / program.parent.relative_to("/")
                names = ("etcd", "etcdctl", "etcdutl")
                return {name: folder / name for name in names if (folder / name).exists()}
    raise SnapshotError("no etcd runs on this host, whose programs restore the snapshot. Start rke2-server")


def restore_command(programs: Mapping[str, Path], snapshot: Path, data: Path) -> list[str]:
    """etcdutl, which etcd 3.5 began and 3.6 requires; before, etcdctl restored."""
    program = programs.get("etcdutl") or programs.get("etcdctl")
    if program is None or "etcdctl" not in programs:
        raise SnapshotError(
            "etcdctl or etcdutl is missing beside the running etcd, so that no snapshot can be restored"
        )
    return [str(program), "snapshot", "restore", str(snapshot), "--data-dir", str(data)]


def require(command: list[str]) -> str:
    code, output, errors = run_command(command)
    if code != 0:
        raise SnapshotError(f"{Path(command[0]).name} failed ({code}): {error_line(errors or output)}")
    return output


@contextmanager
def running_etcd(programs: Mapping[str, Path], data: Path) -> Iterator[Callable[..., str]]:
    """An etcd on the data in a network namespace of its own, that nothing else reaches; yields its etcdctl."""
    with (data.parent / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [*ISOLATED, str(programs["etcd"]), "--data-dir", str(data), "--log-level", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        client = ["nsenter", f"--net=/proc/{process.pid}/ns/net", str(programs["etcdctl"])]
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                require([*client, "endpoint", "health"])
                break
            except SnapshotError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    log_text = (data.parent / "etcd.log").read_text(errors="replace").strip() or str(error)
                    raise SnapshotError(f"etcd does not start on the restored data: {error_line(log_text)}") from error
                time.sleep(1)
        yield lambda *arguments: require([*client, *arguments])
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def drill_etcd(run: Run, folder: Path, _: str) -> Details:
    """Restore the newest snapshot into an etcd, and read Kubernetes' objects from it."""
    manifest = choose(run, etcd.PREFIX)
    if manifest.token_fingerprint != fingerprint(Path(run.options["token_path"]).read_text()):
        raise SnapshotError(
            f"{manifest.object}: it was made with another server token, and can only be restored with that"
        )
    snapshot = folder / Path(manifest.object).name
    fetch(run, manifest, snapshot)
    if snapshot.suffix == ".zip":
        with zipfile.ZipFile(snapshot) as archive:
            snapshot = Path(archive.extract(archive.namelist()[0], folder))
    programs = etcd_programs()
    require(restore_command(programs, snapshot, folder / "data"))
    with running_etcd(programs, folder / "data") as etcdctl:
        keys = etcdctl("get", "/registry/", "--prefix", "--keys-only").split()
        canaries = [key for key in keys if key.endswith(CANARY)]
        canary = etcd.canary_time(etcdctl("get", canaries[0], "--print-value-only")) if canaries else None
    if canary is None:
        raise SnapshotError(f"{manifest.object}: the canary {etcd.CANARY_NAME} is missing among its {len(keys)} keys")
    age = int((parse_time(manifest.created) - parse_time(canary)).total_seconds())
    return {"object": manifest.object, "created": manifest.created, "keys": len(keys), "canary_age_seconds": age}


def drill_ceph(run: Run, folder: Path, identity_path: str) -> Details:
    """Unpack the newest backup of a monitor store, compare its files, and read the maps from the store."""
    manifest = choose(run, "ceph/monitor-")
    archive = folder / "monitor.tar.gz"
    archive.touch(mode=0o600)
    fetch(run, manifest, archive, decryption(identity_path))
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    try:
        described = ceph_backup.verify(archive, unpacked)
    except ceph_backup.BackupError as error:
        raise SnapshotError(f"{manifest.object}: {error}") from error
    shell = ["cephadm", "shell", "--fsid", run.options["fsid"], "--mount", f"{unpacked}:/drill", "--"]
    require([*shell, "ceph-monstore-tool", "/drill/mon", "get", "monmap", "--", "--out", "/drill/monmap"])
    monitors = re.findall(r"mon\.(\S+)$", require([*shell, "monmaptool", "--print", "/drill/monmap"]), re.M)
    if not monitors:
        raise SnapshotError(f"{manifest.object}: the restored store has a map without monitors")
    return {
        "object": manifest.object,
        "created": manifest.created,
        "files": len(described["files"]),
        "monitors": sorted(monitors),
    }


def drill_config(run: Run, folder: Path, identity_path: str) -> Details:
    """Decrypt the newest files of this host and require those that are saved now."""
    manifest = choose(run, f"config/{run.host}-")
    archive = folder / "config.tar"
    archive.touch(mode=0o600)
    fetch(run, manifest, archive, decryption(identity_path))
    with tarfile.open(archive) as opened:
        names = {f"/{member.name}" for member in opened}
    missing = [path for path in run.options["paths"] if "*" not in path and path not in names]
    if missing:
        raise SnapshotError(f"{manifest.object}: it does not hold {', '.join(missing)}")
    return {"object": manifest.object, "created": manifest.created, "files": len(names)}


DRILLS: Mapping[str, Callable[[Run, Path, str], Details]] = {
    "etcd": drill_etcd,
    "ceph": drill_ceph,
    "config": drill_config,
}
NEED_IDENTITY = ("ceph", "config")


def execute(run: Run, identity: str, folder: Path = STATE) -> Details:
    """Drill a part; what was restored is removed, whatever happens."""
    if run.part in NEED_IDENTITY and not identity:
        raise SnapshotError("the private key of the escrow is required to decrypt the snapshot, and none was given")
    prefix = f"drill-{run.part}-"
    for remains in folder.glob(f"{prefix}*"):  # of a drill that was killed
        shutil.rmtree(remains)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch, private_path(identity) as identity_path:
        found = DRILLS[run.part](run, Path(scratch), identity_path)
    return found | {"seconds": round(time.monotonic() - began, 1)}
