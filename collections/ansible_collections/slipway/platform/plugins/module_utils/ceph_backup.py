"""A copy of a monitor's store with all that it takes to make use of it: writing one, and reading it back."""

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

# What a person needs beside the store: keys, dm-crypt secrets, options, maps, the wanted services.
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
    """The copy is not what it should be; the text says why."""


@contextmanager
def private(path: Path) -> Iterator[Any]:
    """A new file that nobody else can read at any moment, put in its place when it is whole."""
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
    """Pack a monitor's folder and the dumps; the manifest lists the digest of each and comes last."""
    digests: dict[str, str] = {}
    with private(path) as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
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


def read_back(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack a copy and hold every file against the manifest in it."""
    if path.stat().st_mode & 0o077:
        raise BackupError(f"{path} can be read by others than its owner")
    with tarfile.open(path, "r:gz") as archive:
        archive.extractall(folder, filter="data")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{path} has no manifest: it was cut off") from error
    there = {
        str(entry.relative_to(folder)): digest(entry)
        for entry in folder.rglob("*")
        if entry.is_file() and entry.name != MANIFEST
    }
    wrong = sorted(
        name for name in there.keys() | manifest["files"].keys() if there.get(name) != manifest["files"].get(name)
    )
    if wrong:
        raise BackupError(f"{path} differs from its manifest in {', '.join(wrong)}")
    current = folder / STORE / "CURRENT"
    if not current.is_file() or not (folder / STORE / current.read_text().strip()).is_file():
        raise BackupError(f"{path} holds no whole store of a monitor: RocksDB's CURRENT leads nowhere")
    return dict(manifest)


def superfluous(folder: Path, prefix: str, keep: int) -> list[Path]:
    """Copies of that name beyond the newest `keep`; times in names sort."""
    copies = sorted(folder.glob(f"{prefix}-*.tar.gz"))
    return copies[:-keep] if keep else copies
