"""The release's images, in `docker save` archives in agent/images: the programs of the runtime and of the pods."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import log
from .layout import Layout, Release
from .log import Fatal
from .pki import write

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""Forms that are read here; RKE2 reads zstd, lz4 and bzip2 too."""


def archives(layout: Layout) -> list[Path]:
    return sorted(
        path
        for path in layout.images.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.name.endswith(SUFFIXES)
    )


def listed(archive: tarfile.TarFile) -> list[dict[str, Any]]:
    file = archive.extractfile("manifest.json")
    entries: list[dict[str, Any]] = json.load(file) if file else []
    return entries


def layers(layout: Layout, image: str) -> Iterator[bytes]:
    """The uncompressed layers of an image, from the first archive that has it."""
    for path in archives(layout):
        with tarfile.open(path) as archive:
            try:
                entries = listed(archive)
            except KeyError:
                continue
            for entry in entries:
                if image not in (entry["RepoTags"] or []):
                    continue
                for name in entry["Layers"]:
                    file = archive.extractfile(name)
                    content = file.read() if file else b""
                    yield gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
                return
    raise Fatal(
        f"failed to get runtime image {image}: no archive in {layout.images} has it, and the simulation of RKE2 pulls "
        "no images of its own"
    )


def extract_runtime(layout: Layout, release: Release) -> None:
    """Extract bin/ of the runtime image beside the programs of this release, once."""
    target = layout.bin.resolve()
    mark = target.parent / ".runtime"
    if mark.exists():
        return
    log.info(f"Extracting {release.images['runtime']} to {target}")
    for layer in layers(layout, release.images["runtime"]):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").partition("/")
                if folder != "bin" or "/" in name or not name:
                    continue
                path = target / name
                path.unlink(missing_ok=True)
                if member.issym():
                    path.symlink_to(member.linkname)
                elif (file := tar.extractfile(member)) is not None:
                    with path.open("wb") as out:
                        shutil.copyfileobj(file, out)
                    path.chmod(0o755)
    mark.touch()


async def import_images(layout: Layout, socket: Path) -> None:
    """Import the archives that changed since the last import into containerd (`.cache.json`, as upstream)."""
    cache = layout.images / ".cache.json"
    known: dict[str, list[int]] = json.loads(cache.read_text()) if cache.exists() else {}
    # Data that was removed takes the images with it, not this cache.
    if not (layout.agent / "containerd" / "io.containerd.content.v1.content" / "blobs").is_dir():
        known = {}
    current = {}
    for path in archives(layout):
        stat = path.stat()
        current[str(path)] = [stat.st_size, stat.st_mtime_ns]
        if known.get(str(path)) == current[str(path)]:
            continue
        log.info(f"Importing images from {path}")
        with gzip.open(path) if path.name.endswith("gz") else path.open("rb") as content:
            process = await asyncio.create_subprocess_exec(
                str(layout.bin / "ctr"), f"--address={socket}", "--namespace=k8s.io", "images", "import", "--no-unpack",
                "--all-platforms", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdin is not None and process.stderr is not None
            try:
                while block := await asyncio.to_thread(content.read, 1 << 20):
                    process.stdin.write(block)
                    await process.stdin.drain()
            except ConnectionError:
                pass  # ctr ended early: its message says why
            process.stdin.close()
            errors = (await process.stderr.read()).decode(errors="replace").strip()
            if await process.wait():
                raise Fatal(f"failed to import images from {path}: {errors[-500:]}")
    write(cache, json.dumps(current))
