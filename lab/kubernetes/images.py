"""Writes container images as `docker save` archives of layers that are compressed once."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCH = "2026-01-01T00:00:00Z"
EPOCH_SECONDS = 1767225600


@dataclass(frozen=True, slots=True)
class Layer:
    path: Path
    digest: str
    """sha256 of the compressed file, in hexadecimal digits."""
    diff_id: str
    """The same of its content."""


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    layers: tuple[Layer, ...]
    settings: Mapping[str, Any]

    def config(self) -> bytes:
        return json.dumps({
            "created": EPOCH,
            "architecture": "amd64",
            "os": "linux",
            "config": self.settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in self.layers]},
        }, sort_keys=True).encode()  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    target: str


def files_tar(files: Mapping[str, bytes | Path | Link]) -> bytes:
    """An uncompressed layer: folders first, because the runtime image's reader does not create parents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {str(parent) for name in files for parent in Path(name.rstrip("/")).parents if str(parent) != "."}
        folders |= {name.rstrip("/") for name in files if name.endswith("/")}
        for name in sorted(folders):
            entry = _entry(name, 0o755)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, content in sorted(files.items()):
            if name.endswith("/"):
                continue
            entry = _entry(name, 0o755)
            if isinstance(content, Link):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(entry)
                continue
            data = content.read_bytes() if isinstance(content, Path) else content
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime, entry.uname, entry.gname = mode, EPOCH_SECONDS, "root", "root"
    return entry


def store_layer(folder: Path, tar: bytes) -> Layer:
    """Compress a layer into the cache; a layer that is there already is not compressed again."""
    diff_id = hashlib.sha256(tar).hexdigest()
    path = folder / f"{diff_id}.tar.gz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as out, gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
            packed.write(tar)
        fresh.replace(path)
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest(), diff_id)


def write_archive(target: Path, images: Iterable[Image]) -> None:
    """Write images as one `docker save` archive; a layer that several images share is in it once."""
    listed, written = [], set()
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for image in images:
            config = image.config()
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            listed.append({
                "Config": config_name, "RepoTags": [image.name],
                "Layers": [f"{layer.digest}.tar.gz" for layer in image.layers],
            })  # fmt: skip
            _add(tar, config_name, config)
            for layer in image.layers:
                if layer.digest not in written:
                    written.add(layer.digest)
                    entry = _entry(f"{layer.digest}.tar.gz", 0o644)
                    entry.size = layer.path.stat().st_size
                    with layer.path.open("rb") as file:
                        tar.addfile(entry, file)
        _add(tar, "manifest.json", json.dumps(listed).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = _entry(name, 0o644)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
