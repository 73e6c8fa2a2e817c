"""The lab's release mirror: RKE2, cephadm and GitLab Runner for the hosts, in the layouts of the official downloads.

`prepare` chooses the source before the daemon starts: the user's artifacts, else the official release if it is
reachable, else the simulation. The choice is stored in `release.json` and stated with every result. `create_app` serves
the folder over HTTPS.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lab.secrets import make_private_dir
from lab.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

VERSIONS = ("v1.36.3+rke2r1", "v1.36.2+rke2r1")
"""The version that the platform installs, and the previous one: the version to upgrade from."""
TARBALL = "rke2.linux-amd64.tar.gz"
CHECKSUMS = "sha256sum-amd64.txt"
OFFICIAL_URL = "https://github.com/rancher/rke2/releases/download"
RELEASES_PATH = "/rke2/releases/download"

Progress = Callable[[str], None]


class MirrorError(Exception):
    """The release cannot be served. The text is one sentence for the user."""


class Source(StrEnum):
    LOCAL = "local"
    OFFICIAL = "official"
    SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class Release:
    source: Source
    note: str
    """One sentence: the source of the release."""


def release_dir(settings: Settings) -> Path:
    """The folder that is served under `RELEASES_PATH`: one subfolder per version."""
    return settings.state_dir / "mirror" / "rke2"


def runner_dir(settings: Settings) -> Path:
    """The folder that is served as packages.gitlab.com/runner/gitlab-runner."""
    return settings.state_dir / "mirror" / "gitlab-runner"


def prepare(
    settings: Settings,
    artifacts: Path | None,
    progress: Progress,
    *,
    official_url: str = OFFICIAL_URL,
    probe_seconds: float = 3.0,
) -> Release:
    """Fill the mirror's folder from the first available source; fast when nothing changed."""
    folder = make_private_dir(release_dir(settings))
    cache = settings.cache_dir / "rke2" / "official"
    if artifacts is not None:
        release = _use_local(artifacts, folder)
    elif _reachable(official_url, probe_seconds, cache):
        release = _use_official(official_url, cache, folder, progress)
    else:
        release = _simulate(settings, folder, progress)
    (folder / "release.json").write_text(json.dumps(asdict(release)), encoding="utf-8")
    return release


def read_release(settings: Settings) -> Release:
    """The release that `prepare` chose."""
    path = release_dir(settings) / "release.json"
    if not path.exists():
        raise MirrorError(f"{path} is missing: the release mirror was never filled. Run: lab up")
    known = json.loads(path.read_text(encoding="utf-8"))
    return Release(source=Source(known["source"]), note=known["note"])


def create_app(settings: Settings) -> Starlette:
    """The mirror as an ASGI application; `+` in a version may be encoded as `%2B`, as in the official URLs."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    from lab import ceph
    from lab.charts import mirror as charts
    from lab.runnersim import package as runner

    # Folders of versions may be links to the user's folder or the cache.
    files = StaticFiles(directory=release_dir(settings), follow_symlink=True)
    cephadm = StaticFiles(directory=make_private_dir(ceph.mirror_dir(settings)))
    packages = StaticFiles(directory=make_private_dir(runner_dir(settings)))
    return Starlette(
        routes=[
            Mount(RELEASES_PATH, files),
            Mount(ceph.PUBLIC_PATH, cephadm),
            Mount(runner.PUBLIC_PATH, packages),
            Mount(charts.PUBLIC_PATH, StaticFiles(directory=make_private_dir(charts.folder(settings)))),
        ]
    )


# Sources


def _use_local(artifacts: Path, folder: Path) -> Release:
    folders = {path.name: path for path in sorted(artifacts.glob("v*+rke2r*")) if path.is_dir()}
    if VERSIONS[0] not in folders:
        raise MirrorError(
            f"{artifacts} has no folder {VERSIONS[0]}. Copy {TARBALL} and {CHECKSUMS} of that release to "
            f"{artifacts / VERSIONS[0]}."
        )
    for path in folders.values():
        for name in (TARBALL, CHECKSUMS):
            if not (path / name).is_file():
                raise MirrorError(f"{path / name} is missing. Add it: a release consists of {TARBALL} and {CHECKSUMS}.")
        verify(path)
    _clear(folder, keep=())
    for version, path in folders.items():
        (folder / version).symlink_to(path.resolve())
    return Release(Source.LOCAL, f"RKE2 is the release in {artifacts.resolve()} ({', '.join(folders)}).")


def _use_official(url: str, cache: Path, folder: Path, progress: Progress) -> Release:
    for version in VERSIONS:
        _download(url, version, cache / version, progress)
    _clear(folder, keep=())
    for version in VERSIONS:
        (folder / version).symlink_to(cache / version)
    return Release(Source.OFFICIAL, f"RKE2 is the official release ({', '.join(VERSIONS)}), checksums verified.")


def _simulate(settings: Settings, folder: Path, progress: Progress) -> Release:
    from lab.debian import DebianError
    from lab.kubernetes.build import BuildError, programs
    from lab.machines.base import MachineError
    from lab.rke2sim import package

    _clear(folder, keep=VERSIONS)
    # Built once for all labs of this machine, then copied: a lab serves the build it was started with.
    built = settings.cache_dir / "rke2" / "simulation"
    built.mkdir(parents=True, exist_ok=True)
    with (built / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            kubernetes = programs(settings.cache_dir, VERSIONS, progress)
            for version in VERSIONS:
                progress(f"packing the lab's release {version}")
                (built / version).mkdir(exist_ok=True)
                package.build(version, built / version, settings.cache_dir / "rke2sim")
                package.build_images(
                    version, built / version, settings.cache_dir / "rke2sim", kubernetes[version], progress
                )
                _copy(built / version, folder / version)
        except (BuildError, DebianError, MachineError, package.PackageError) as error:
            raise MirrorError(f"building the lab's release failed: {error}") from error
    return Release(
        Source.SIMULATION,
        "RKE2 is a simulation (lab.rke2sim) around real Kubernetes, containerd and etcd; its ingress is simulated too. "
        "Use real artifacts with --rke2-artifacts.",
    )


def image_archives(settings: Settings) -> list[str]:
    """The archives of images that come with every version the mirror serves."""
    folders = [path for path in release_dir(settings).iterdir() if path.is_dir()]
    names = [{path.name for path in folder.glob("rke2-images*.tar*") if path.is_file()} for folder in folders]
    return sorted(set[str].intersection(*names)) if names else []


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a release, the checksums last; skipped when the target has the same checksums."""
    target.mkdir(exist_ok=True)
    wanted = (source / CHECKSUMS).read_bytes()
    if (target / CHECKSUMS).exists() and (target / CHECKSUMS).read_bytes() == wanted:
        return
    files = [path for path in source.iterdir() if not path.name.startswith(".")]
    for path in sorted(files, key=lambda path: path.name == CHECKSUMS):
        temporary = target / f".{path.name}.partial"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)  # a new build replaces the file in the cache and leaves this one
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(target / path.name)


def _clear(folder: Path, keep: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.name in keep and not path.is_symlink():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _reachable(url: str, seconds: float, cache: Path) -> bool:
    """Whether the official release is available: complete in the cache, or its server answers one request."""
    if all((cache / version / CHECKSUMS).exists() for version in VERSIONS):
        return True
    try:
        with urllib.request.urlopen(_address(url, VERSIONS[0], CHECKSUMS), timeout=seconds) as answer:
            return int(answer.status) == 200
    except (OSError, ValueError):
        return False


def _address(url: str, version: str, name: str) -> str:
    return f"{url}/{quote(version, safe='')}/{name}"


def _download(url: str, version: str, folder: Path, progress: Progress) -> None:
    """Download one version into the cache. The checksums come last: their presence means the version is complete."""
    if (folder / CHECKSUMS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{TARBALL}.partial"
    checksums = folder / f".{CHECKSUMS}.partial"
    for name, target in ((CHECKSUMS, checksums), (TARBALL, partial)):
        try:
            with (
                urllib.request.urlopen(_address(url, version, name), timeout=60) as answer,
                target.open("wb") as file,
            ):
                total = int(answer.headers.get("Content-Length") or 0)
                while block := answer.read(1 << 20):
                    file.write(block)
                    progress(f"downloading RKE2 {version}: {file.tell() >> 20} of {total >> 20} MB")
        except OSError as error:
            raise MirrorError(
                f"downloading {name} of RKE2 {version} failed: {error}. Run the command again, or provide the release "
                "with --rke2-artifacts."
            ) from error
    _check(partial, TARBALL, checksums)
    partial.replace(folder / TARBALL)
    checksums.replace(folder / CHECKSUMS)


def verify(folder: Path) -> None:
    """Compare every file of a release with its list of checksums."""
    for path in sorted(folder.iterdir()):
        if path.name != CHECKSUMS and path.is_file() and not path.name.startswith("."):
            _check(path, path.name, folder / CHECKSUMS)


def _check(path: Path, name: str, checksums: Path) -> None:
    listed = {
        words[1].lstrip("*"): words[0]
        for words in (line.split() for line in checksums.read_text(encoding="utf-8").splitlines())
        if len(words) == 2
    }
    if name not in listed:
        if name == TARBALL:
            raise MirrorError(f"{checksums} does not list {name}: they are of different releases. Download both again.")
        return
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != listed[name]:
        raise MirrorError(
            f"{path} has checksum {actual[:12]}… instead of {listed[name][:12]}…: the file is damaged. "
            "Download it again."
        )
