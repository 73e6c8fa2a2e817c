"""The copy of a monitor's store: private from its first byte, and refused when anything in it is not as it was."""

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
def copy(tmp_path: Path, store: Path) -> Path:
    path = tmp_path / "before-h1-20261121T080000Z.tar.gz"
    ceph_backup.write(path, store, {"auth.json": "{}"}, {"fsid": "f", "monitor": "h1"})
    return path


def test_a_copy_reads_back(tmp_path: Path, copy: Path) -> None:
    assert copy.stat().st_mode & 0o777 == 0o600
    manifest = ceph_backup.read_back(copy, tmp_path / "out")
    assert (manifest["fsid"], manifest["monitor"]) == ("f", "h1")
    assert sorted(manifest["files"]) == [
        "auth.json",
        "mon/keyring",
        "mon/store.db/000009.sst",
        "mon/store.db/CURRENT",
        "mon/store.db/MANIFEST-000005",
    ]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_copy_that_others_can_read_is_refused(tmp_path: Path, copy: Path) -> None:
    copy.chmod(0o640)
    with pytest.raises(BackupError, match="can be read by others"):
        ceph_backup.read_back(copy, tmp_path / "out")


def repacked(copy: Path, folder: Path) -> None:
    with tarfile.open(copy, "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.add(path, arcname=str(path.relative_to(folder)))
    copy.chmod(0o600)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda root: (root / "mon/store.db/000009.sst").write_text("z"),
            "manifest in mon/store.db/0",
        ),
        (lambda root: (root / "auth.json").unlink(), "differs from its manifest in auth.json"),
        (lambda root: (root / "more").write_text("z"), "differs from its manifest in more"),
        (lambda root: (root / "manifest.json").unlink(), "has no manifest: it was cut off"),
    ],
)
def test_a_copy_that_was_changed_is_refused(tmp_path: Path, copy: Path, change: object, sentence: str) -> None:
    out = tmp_path / "out"
    ceph_backup.read_back(copy, out)
    change(out)  # type: ignore[operator]
    repacked(copy, out)
    with pytest.raises(BackupError, match=sentence):
        ceph_backup.read_back(copy, tmp_path / "again")


def test_a_copy_that_was_cut_off_is_refused(tmp_path: Path, copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:100])
    with pytest.raises((EOFError, tarfile.ReadError, gzip.BadGzipFile)):
        ceph_backup.read_back(copy, tmp_path / "out")


def test_a_store_without_its_manifest_is_refused(tmp_path: Path, store: Path) -> None:
    (store / "store.db/MANIFEST-000005").unlink()
    path = tmp_path / "copy.tar.gz"
    ceph_backup.write(path, store, {}, {})
    with pytest.raises(BackupError, match="RocksDB's CURRENT leads nowhere"):
        ceph_backup.read_back(path, tmp_path / "out")


def test_a_copy_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "copy.tar.gz"
    with pytest.raises(RuntimeError), ceph_backup.private(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_go_first(tmp_path: Path) -> None:
    names = [f"before-h1-2026112{day}T080000Z.tar.gz" for day in range(4)]
    for name in [*names, "other-h1-20261101T080000Z.tar.gz"]:
        (tmp_path / name).write_text(json.dumps(name))
    assert [path.name for path in ceph_backup.superfluous(tmp_path, "before-h1", 2)] == names[:2]
