"""The lab's chart repository and the images of its charts.

`prepare` chooses the source: charts in a folder of the user, else the official repositories if they are reachable, else
the lab's own. The release mirror serves the folder; the images are in the storage of the lab's registry.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lab import oci, registry
from lab.charts.catalogue import Build, Image, charts, digest
from lab.kubernetes import archive, build
from lab.kubernetes.images import EPOCH, files_tar
from lab.machines import builds
from lab.secrets import make_private_dir
from lab.settings import Settings

PUBLIC_PATH = "/charts"
OFFICIAL_URL = "https://charts.jetstack.io/index.yaml"
PROBE_SECONDS = 3.0

Progress = Callable[[str], None]


class ChartError(Exception):
    """The charts cannot be served. The text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Source:
    kind: str
    """local, official or simulation, as of `lab.mirror`."""
    note: str


def folder(settings: Settings) -> Path:
    """The folder that the release mirror serves under `PUBLIC_PATH`: one folder for each repository."""
    return settings.state_dir / "mirror" / "charts"


def prepare(
    settings: Settings, given: Path | None, versions: Sequence[str], progress: Progress, *, official: str = OFFICIAL_URL
) -> Source:
    """Fill the folder from the first source that there is."""
    registry.ensure_program(settings)
    served = make_private_dir(folder(settings))
    with builds.locked(settings.cache_dir / "charts.lock"):
        for old in served.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        if given is not None:
            source = _use_given(settings, given, served)
        elif _reachable(official):
            source = Source("official", "Charts and their images come from the official repositories.")
        else:
            source = _use_own(settings, versions, served, progress)
    (served / "source.json").write_text(json.dumps(asdict(source)), encoding="utf-8")
    return source


def read_source(settings: Settings) -> Source | None:
    """The source that `prepare` chose; None before its first run."""
    path = folder(settings) / "source.json"
    return Source(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def describe(settings: Settings, source: Source | None, mirror_url: str) -> dict[str, str]:
    """The `charts` section of lab.json; `mirror` and `registry` are empty for the official source."""
    if source is None or source.kind == "official":
        return {"mirror": "", "registry": "", "note": source.note if source else ""}
    return {"mirror": f"{mirror_url}{PUBLIC_PATH}", "registry": registry.address(settings), "note": source.note}


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:
            return int(answer.status) == 200
    except (OSError, ValueError):
        return False


def _use_given(settings: Settings, given: Path, served: Path) -> Source:
    found = sorted(path for path in given.iterdir() if path.is_dir() and any(path.glob("*.tgz")))
    if not found:
        raise ChartError(f"{given} has no folder with charts. Copy charts to {given}/jetstack/<name>-<version>.tgz.")
    for repository in found:
        (served / repository.name).mkdir()
        archives = {path.name: path.read_bytes() for path in sorted(repository.glob("*.tgz"))}
        _write_repository(served / repository.name, archives)
    for path in sorted((given / "images").glob("*.tar")):
        _publish_archive(registry.storage(settings), path)
    return Source("local", f"Charts are those of {given.resolve()} ({', '.join(path.name for path in found)}).")


def _use_own(settings: Settings, versions: Sequence[str], served: Path, progress: Progress) -> Source:
    programs = build.programs(settings.cache_dir, versions, progress)[versions[0]]
    own = charts(Build(programs, build.module_charts(programs)))
    progress("writing charts and their images")
    publish_images(settings, [image for chart in own for image in chart.images], progress)
    for name in sorted({chart.repository for chart in own}):
        (served / name).mkdir()
        _write_repository(
            served / name, {chart.archive_name: chart.archive() for chart in own if chart.repository == name}
        )
    return Source("simulation", "Charts of the lab. " + ". ".join(chart.note for chart in own if chart.note) + ".")


def _write_repository(target: Path, archives: dict[str, bytes]) -> None:
    """The archives and helm's index of them."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for file_name, content in archives.items():
        (target / file_name).write_bytes(content)
        described = chart_description(content)
        entries.setdefault(described["name"], []).append(
            {**described, "created": EPOCH, "digest": digest(content), "urls": [file_name]}
        )
    for versions in entries.values():
        versions.sort(key=lambda entry: [int(part) for part in re.findall(r"\d+", entry["version"])], reverse=True)
    index = {"apiVersion": "v1", "entries": entries, "generated": EPOCH}
    (target / "index.yaml").write_text(yaml.safe_dump(index, sort_keys=True), encoding="utf-8")


def chart_description(content: bytes) -> dict[str, Any]:
    """Chart.yaml of an archive."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for member in tar:
            if (
                member.name.count("/") == 1
                and member.name.endswith("/Chart.yaml")
                and (file := tar.extractfile(member))
            ):
                described: dict[str, Any] = yaml.safe_load(file.read())
                return described
    raise ChartError("a chart's archive has no Chart.yaml. Pack it with `helm package`.")


# Images


def publish_images(settings: Settings, images: Iterable[Image], progress: Progress) -> None:
    """Write images into the registry's storage, uncompressed; layers that are there already are not written again."""
    storage = registry.storage(settings)
    for image in images:
        layers = [oci.Layer(storage.add(files_tar(image.files)), "program")]
        if image.base:
            packed = archive.base(settings.cache_dir / "rke2sim" / "layers", progress)
            if not storage.path(f"sha256:{packed.diff_id}").exists():
                storage.add(gzip.decompress(packed.path.read_bytes()))
            base = oci.Blob(f"sha256:{packed.diff_id}", storage.path(f"sha256:{packed.diff_id}").stat().st_size)
            layers.insert(0, oci.Layer(base, f"packages of Debian {archive.SUITE}"))
        storage.publish(image.repository, image.tag, layers, image.settings, EPOCH)


def _publish_archive(storage: oci.Storage, path: Path) -> None:
    """Publish the images of a `docker save` archive."""
    with tarfile.open(path) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            return file.read() if file else b""

        for entry in json.loads(read("manifest.json")):
            config = json.loads(read(entry["Config"]))
            layers = []
            for name in entry["Layers"]:
                content = read(name)
                plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
                layers.append(oci.Layer(storage.add(plain), f"layer {hashlib.sha256(plain).hexdigest()[:12]}"))
            for tag in entry["RepoTags"] or []:
                image = Image(tag, {}, config.get("config") or {})
                storage.publish(image.repository, image.tag, layers, image.settings, config.get("created", EPOCH))
