"""The backup of a monitor store: mode 0600 from its creation, and rejected after any change to its content."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_backup
from ansible_collections.slipway.platform.plugins.module_utils.ceph_backup import BackupError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A monitor's folder."""
    folder = tmp_path / "mon.h1"
    (folder / "store.db").mkdir(parents=True)
    for name, text in (("CURRENT", "MANIFEST-000005\n"), ("MANIFEST-000005", "x"), ("000009.sst", "y"), ("LOCK", "")):
        (folder / "store.db" / name).write_text(text)
    (folder / "keyring").write_text("[mon.]")
    return folder


@pytest.fixture
def backup(tmp_path: Path, store: Path) -> Path:
    path = tmp_path / "before-h1-20261121T080000Z.tar.gz"
    ceph_backup.write(path, store, {"auth.json": "{}"}, {"fsid": "f", "monitor": "h1"})
    return path


def test_a_backup_is_verified(tmp_path: Path, backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    manifest = ceph_backup.verify(backup, tmp_path / "out")
    assert (manifest["fsid"], manifest["monitor"]) == ("f", "h1")
    assert sorted(manifest["files"]) == [
        "auth.json",
        "mon/keyring",
        "mon/store.db/000009.sst",
        "mon/store.db/CURRENT",
        "mon/store.db/MANIFEST-000005",
    ]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_backup_that_others_can_read_is_rejected(tmp_path: Path, backup: Path) -> None:
    backup.chmod(0o640)
    with pytest.raises(BackupError, match="readable by others"):
        ceph_backup.verify(backup, tmp_path / "out")


def repacked(backup: Path, folder: Path) -> None:
    with tarfile.open(backup, "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.add(path, arcname=str(path.relative_to(folder)))
    backup.chmod(0o600)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "mon/store.db/000009.sst").write_text("z"),
            "manifest in mon/store.db/0",
        ),
        (lambda root: (root / "auth.json").unlink(), "differs from its manifest in auth.json"),
        (lambda root: (root / "more").write_text("z"), "differs from its manifest in more"),
        (lambda root: (root / "manifest.json").unlink(), "no manifest, the file is truncated"),
    ],
)
def test_a_changed_backup_is_rejected(tmp_path: Path, backup: Path, change: object, message: str) -> None:
    out = tmp_path / "out"
    ceph_backup.verify(backup, out)
    change(out)  # type: ignore[operator]
    repacked(backup, out)
    with pytest.raises(BackupError, match=message):
        ceph_backup.verify(backup, tmp_path / "again")


def test_a_truncated_backup_is_rejected(tmp_path: Path, backup: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:100])
    with pytest.raises((EOFError, tarfile.ReadError, gzip.BadGzipFile)):
        ceph_backup.verify(backup, tmp_path / "out")


def test_a_store_without_its_manifest_is_rejected(tmp_path: Path, store: Path) -> None:
    (store / "store.db/MANIFEST-000005").unlink()
    path = tmp_path / "backup.tar.gz"
    ceph_backup.write(path, store, {}, {})
    with pytest.raises(BackupError, match="CURRENT names a missing manifest"):
        ceph_backup.verify(path, tmp_path / "out")


def test_an_interrupted_backup_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "backup.tar.gz"
    with pytest.raises(RuntimeError), ceph_backup.private_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_backups_expire_first(tmp_path: Path) -> None:
    names = [f"before-h1-2026112{day}T080000Z.tar.gz" for day in range(4)]
    for name in [*names, "other-h1-20261101T080000Z.tar.gz"]:
        (tmp_path / name).write_text(json.dumps(name))
    assert [path.name for path in ceph_backup.expired(tmp_path, "before-h1", 2)] == names[:2]
