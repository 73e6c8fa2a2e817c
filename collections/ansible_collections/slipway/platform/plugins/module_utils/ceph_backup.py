"""A backup of a monitor store with everything a restore needs: write one, and verify it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
STORE = "mon/store.db"
BLOCK = 1 << 20

# What a restore needs beside the store: keys, dm-crypt secrets, options, maps.
DUMPS = {
    "config-key.json": ["config-key", "dump"],
    "auth.json": ["auth", "ls"],
    "config.json": ["config", "dump"],
    "mon.json": ["mon", "dump"],
    "osd.json": ["osd", "dump"],
    "crush.json": ["osd", "crush", "dump"],
    "fs.json": ["fs", "dump"],
    "versions.json": ["versions"],
}


class BackupError(Exception):
    """The backup is not valid; the text gives the reason."""


@contextmanager
def private_file(path: Path) -> Iterator[Any]:
    """A new file with mode 0600 from its creation, renamed to its path when it is complete."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: Path, folder: Path, dumps: dict[str, str], facts: dict[str, Any]) -> dict[str, Any]:
    """Pack a monitor's folder and the dumps; the manifest with the digest of each file comes last."""
    digests: dict[str, str] = {}
    with private_file(path) as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, text in sorted(dumps.items()):
            _add(archive, name, text.encode())
            digests[name] = hashlib.sha256(text.encode()).hexdigest()
        for source in sorted(entry for entry in folder.rglob("*") if entry.is_file() and entry.name != "LOCK"):
            name = f"mon/{source.relative_to(folder)}"
            digests[name] = digest(source)
            archive.add(source, arcname=name, recursive=False)
        manifest = facts | {"made_at": int(time.time()), "files": digests}
        _add(archive, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return manifest


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack a backup and compare every file with its manifest."""
    if path.stat().st_mode & 0o077:
        raise BackupError(f"{path}: readable by others than its owner")
    with tarfile.open(path, "r:gz") as archive:
        archive.extractall(folder, filter="data")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{path}: no manifest, the file is truncated") from error
    digests = {
        str(entry.relative_to(folder)): digest(entry)
        for entry in folder.rglob("*")
        if entry.is_file() and entry.name != MANIFEST
    }
    wrong = sorted(
        name for name in digests.keys() | manifest["files"].keys() if digests.get(name) != manifest["files"].get(name)
    )
    if wrong:
        raise BackupError(f"{path}: differs from its manifest in {', '.join(wrong)}")
    current = folder / STORE / "CURRENT"
    if not current.is_file() or not (folder / STORE / current.read_text().strip()).is_file():
        raise BackupError(f"{path}: incomplete monitor store, RocksDB's CURRENT names a missing manifest")
    return dict(manifest)


def expired(folder: Path, prefix: str, keep: int) -> list[Path]:
    """Backups with that prefix beyond the newest `keep`; the times in their names sort."""
    backups = sorted(folder.glob(f"{prefix}-*.tar.gz"))
    return backups[:-keep] if keep else backups
