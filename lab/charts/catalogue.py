"""Charts of the lab and their images: what they are made of."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.kubernetes.images import EPOCH_SECONDS, Link


@dataclass(frozen=True, slots=True)
class Image:
    """An image under its official name; `base` puts Debian with python3, openssl and ca-certificates under it."""

    name: str
    files: Mapping[str, bytes | Path | Link]
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: bool = False

    @property
    def repository(self) -> str:
        """Its path in a registry: the name without the registry's host."""
        return self.name.rpartition(":")[0].partition("/")[2]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in a folder of the repository; `simulation` when one of its programs is a test double."""

    repository: str
    name: str
    version: str
    files: Mapping[str, bytes]
    images: tuple[Image, ...] = ()
    simulation: bool = False
    note: str = ""

    @property
    def archive_name(self) -> str:
        return f"{self.name}-{self.version}.tgz"

    def archive(self) -> bytes:
        """The chart as helm packs it; equal files give equal bytes."""
        buffer = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for path, content in sorted(self.files.items()):
                entry = tarfile.TarInfo(f"{self.name}/{path}")
                entry.size, entry.mtime, entry.mode = len(content), EPOCH_SECONDS, 0o644
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Build:
    """What charts of the lab are made of: the Go programs, and the charts of their modules."""

    programs: Path
    charts: Path


def charts(build: Build) -> list[Chart]:
    """All charts of the lab."""
    from lab.charts import ceph_csi, cert_manager, rancher

    return [chart for product in (cert_manager, ceph_csi, rancher) for chart in product.charts(build)]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
