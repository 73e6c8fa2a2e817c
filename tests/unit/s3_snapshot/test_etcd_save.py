"""Snapshots of etcd that a run takes: for a host that has none in the bucket, and where it is to save now."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slipway_snapshot import etcd
from slipway_snapshot.etcd import SnapshotError
from slipway_snapshot.run import Run

from tests.unit.s3_snapshot.test_restore import Memory, bucket_of

HOST = "server-1"


@pytest.fixture
def store() -> Memory:
    return Memory(**{"prod-backup": {}})


@pytest.fixture
def run(store: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(etcd, "PROGRAM_PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(etcd, "write_canary", lambda now: None)
    (tmp_path / "bin").mkdir()
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "token").write_text("secret\n")
    options = {"snapshot_dir": str(tmp_path / "snapshots"), "token_path": str(tmp_path / "token")}
    return Run("etcd", "prod", HOST, "10.0.0.1", "age1x", options, bucket_of(store, "prod-backup"))


@pytest.fixture
def rke2(tmp_path: Path) -> Callable[[str], Path]:
    """Install a program that runs this for `etcd-snapshot save`; the path of its log."""

    def install(save: str) -> Path:
        program, log = tmp_path / "bin/rke2", tmp_path / "log"
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "$*" >> {shlex.quote(str(log))}\n{save}\n')
        program.chmod(0o755)
        return log

    return install


def uploads(store: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What RKE2 does beside the program: the local snapshots are in the bucket once `save` has ended."""
    save = etcd.save

    def save_and_upload(on_demand: bool) -> None:
        save(on_demand)
        for path in folder.iterdir():
            store.buckets["prod-backup"][f"etcd/{path.name}"] = path.read_bytes()

    monkeypatch.setattr(etcd, "save", save_and_upload)


def test_a_host_without_a_snapshot_gets_one(
    run: Run, store: Memory, rke2: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "snapshots"
    log = rke2(f"printf content > {folder}/etcd-snapshot-{HOST}-{int(time.time())}")
    uploads(store, folder, monkeypatch)
    etcd.execute(run)
    assert run.newest is not None and run.newest.object.startswith(f"etcd/etcd-snapshot-{HOST}-")
    assert f"manifests/{run.newest.object}.json" in store.buckets["prod-backup"]
    etcd.execute(run)
    assert log.read_text() == "etcd-snapshot save\n", "once"


def test_a_snapshot_on_demand_displaces_no_scheduled_one(
    run: Run, store: Memory, rke2: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now = tmp_path / "snapshots", int(time.time())
    store.buckets["prod-backup"][f"etcd/etcd-snapshot-{HOST}-{now - 60}"] = b"content"
    log = rke2(f'[ "$2" = prune ] || printf content > {folder}/on-demand-{HOST}-{now}')
    uploads(store, folder, monkeypatch)
    run.saves_now = True
    etcd.execute(run)
    assert run.newest is not None and run.newest.object == f"etcd/on-demand-{HOST}-{now}"
    assert log.read_text().splitlines() == [
        "etcd-snapshot save --name on-demand",
        "etcd-snapshot prune --name on-demand --snapshot-retention 5",
    ]


def test_a_snapshot_on_demand_that_is_not_uploaded_is_a_fault(
    run: Run, store: Memory, rke2: Callable[[str], Path]
) -> None:
    """An older one in the bucket does not count."""
    store.buckets["prod-backup"][f"etcd/etcd-snapshot-{HOST}-{int(time.time()) - 60}"] = b"content"
    rke2("true")
    run.saves_now = True
    with pytest.raises(SnapshotError, match="a snapshot was saved and not uploaded"):
        etcd.execute(run)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        ("echo level=fatal msg=denied >&2; exit 1", r"rke2 etcd-snapshot save failed \(1\): level=fatal msg=denied"),
        ("exit 3", r"rke2 etcd-snapshot save failed \(3\): no output"),
        ("true", "a snapshot was saved and not uploaded. See journalctl --unit rke2-server"),
    ],
    ids=["rejected", "no output", "not uploaded"],
)
def test_a_first_snapshot_that_fails_is_a_fault(run: Run, rke2: Callable[[str], Path], save: str, message: str) -> None:
    rke2(save)
    with pytest.raises(SnapshotError, match=f"^{message}$"):
        etcd.execute(run)


def test_a_host_without_rke2_is_a_fault(run: Run) -> None:
    with pytest.raises(SnapshotError, match=r"rke2: is not installed on this host\. Run playbooks/rke2\.yml"):
        etcd.execute(run)
