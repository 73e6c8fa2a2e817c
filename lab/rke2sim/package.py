"""Builds the lab's release: tarball, archive of images and checksums, in the layout of the official ones.

RKE2 itself is simulated; the images hold real Kubernetes (`lab.kubernetes`). etcd, runc and openssl are Debian 13's,
downloaded by apt into a cache, independent of this machine's release. Equal inputs give equal bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from lab import debian
from lab.kubernetes import archive
from lab.kubernetes.images import write_archive

HERE = Path(__file__).parent
TARBALL = "rke2.linux-amd64.tar.gz"
CHECKSUMS = "sha256sum-amd64.txt"
SUITE = "trixie"
PACKAGES = ("etcd-server", "etcd-client", "openssl", "runc")
PROGRAMS = {"etcd": "usr/bin", "etcdctl": "usr/bin", "openssl": "usr/bin", "runc": "usr/sbin"}
PACKED = ("etcd", "etcdctl", "openssl")
"""Those in bin/rke2; the others are in the images."""
VERSION = re.compile(r"v\d+\.\d+\.\d+(-rc\d+)?\+rke2r\d+")
EPOCH = (2026, 1, 1, 0, 0, 0)
EPOCH_SECONDS = 1767225600


class PackageError(Exception):
    """The release cannot be built; the message names what is missing."""


def fetch_programs(folder: Path) -> None:
    """Download Debian 13's programs to `folder`."""
    with tempfile.TemporaryDirectory(prefix="slipway-programs-") as name:
        tree = Path(name)
        packages = debian.extract(SUITE, PACKAGES, tree)
        staging = folder.with_name(f".{folder.name}.{os.getpid()}")
        staging.mkdir(parents=True)
        for program, directory in PROGRAMS.items():
            shutil.copyfile(tree / directory / program, staging / program)
            (staging / program).chmod(0o755)
        (staging / "packages.json").write_text(json.dumps(packages))
        try:
            staging.rename(folder)
        except OSError:
            shutil.rmtree(staging)  # A concurrent build has created the folder already.


def programs(cache: Path) -> Path:
    """The folder with Debian 13's programs, downloaded on first use."""
    folder = cache / "rke2sim" / f"programs-{SUITE}-{len(PACKAGES)}"
    if not (folder / "packages.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetch_programs(folder)
    return folder


def _library() -> dict[str, bytes]:
    """The Python modules: the runtime under the name rke2sim, and PyYAML without its C extension."""
    files = {}
    for path in sorted((HERE / "runtime").glob("*.py")):
        files[f"lib/rke2sim/{path.name}"] = path.read_bytes()
    for path in sorted(Path(yaml.__file__).parent.glob("*.py")):
        files[f"lib/yaml/{path.name}"] = path.read_bytes()
    return files


def etcd_version(folder: Path) -> str:
    """Upstream's version of Debian's etcd, from the names of the downloaded packages."""
    names = json.loads((folder / "packages.json").read_text())
    found = [name.split("_")[1] for name in names if name.startswith("etcd-server_")]
    return re.sub(r"[+~-].*", "", found[0])


def _archive(version: str, cache: Path) -> bytes:
    """bin/rke2: a zip file with a `#!` line in front."""
    files = _library()
    folder = programs(cache)
    for program in PACKED:
        files[f"bin/{program}"] = (folder / program).read_bytes()
    files["__main__.py"] = (HERE / "release" / "main.py").read_bytes()
    digest = hashlib.sha256(version.encode())
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    release = {
        "version": version, "commit": f"simulation-{digest.hexdigest()[:12]}", "digest": digest.hexdigest(),
        "images": archive.image_names(version, etcd_version(folder)),
    }  # fmt: skip
    files["release.json"] = json.dumps(release).encode()
    buffer = io.BytesIO(b"#!/usr/bin/python3 -IS\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | (0o755 if name.startswith("bin/") else 0o644)) << 16
            packed.writestr(entry, files[name])
    return buffer.getvalue()


def _members(version: str, cache: Path) -> dict[str, tuple[bytes, int]]:
    release = HERE / "release"

    def text(name: str) -> bytes:
        return (release / name).read_bytes()

    return {
        "bin/rke2": (_archive(version, cache), 0o755),
        "bin/rke2-killall.sh": (text("rke2-killall.sh"), 0o755),
        "bin/rke2-uninstall.sh": (text("rke2-uninstall.sh"), 0o755),
        "lib/systemd/system/rke2-agent.env": (text("rke2.env"), 0o644),
        "lib/systemd/system/rke2-agent.service": (text("rke2-agent.service"), 0o644),
        "lib/systemd/system/rke2-server.env": (text("rke2.env"), 0o644),
        "lib/systemd/system/rke2-server.service": (text("rke2-server.service"), 0o644),
        "share/rke2/LICENSE.txt": (text("LICENSE.txt"), 0o644),
        "share/rke2/rke2-cis-sysctl.conf": (text("rke2-cis-sysctl.conf"), 0o644),
    }


def _tarball(members: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=4, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        folders = {str(parent) for name in members for parent in Path(name).parents if str(parent) != "."}
        for name in sorted([*folders, *members]):
            entry = tarfile.TarInfo(name)
            entry.mtime = EPOCH_SECONDS
            entry.uname = entry.gname = "root"
            if name in members:
                content, entry.mode = members[name]
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
    return buffer.getvalue()


def _ingress() -> dict[str, bytes]:
    """The files of the ingress's image: its modules and its entry point."""
    files = {f"usr/lib/rke2sim/{name.removeprefix('lib/')}": content for name, content in _library().items()}
    return {**files, "usr/local/bin/traefik": (HERE / "release" / "traefik-simulation").read_bytes()}


def build(version: str, folder: Path, cache: Path) -> None:
    """Write the tarball and its checksums to `folder`; fast when nothing changed.

    `cache` contains Debian's programs and finished tarballs.
    """
    if not VERSION.fullmatch(version):
        raise PackageError(f"{version!r} is not an RKE2 version. The format is v1.36.3+rke2r1.")
    members = _members(version, cache)
    mark = hashlib.sha256()
    for name in sorted(members):
        mark.update(name.encode() + hashlib.sha256(members[name][0]).digest())
    mark.update(Path(__file__).read_bytes())
    finished = cache / "rke2sim" / f"{version}-{mark.hexdigest()[:16]}.tar.gz"
    if not finished.exists():
        finished.parent.mkdir(parents=True, exist_ok=True)
        for stale in finished.parent.glob(f"{version}-*.tar.gz"):
            stale.unlink(missing_ok=True)
        fresh = finished.with_name(f".{finished.name}.{os.getpid()}")
        fresh.write_bytes(_tarball(members))
        fresh.rename(finished)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / TARBALL, finished.read_bytes())
    _write_checksums(folder)


def build_images(version: str, folder: Path, cache: Path, kubernetes: Path, progress: Callable[[str], None]) -> None:
    """Write the archive of the images beside the tarball; `kubernetes` has the programs of Kubernetes."""
    debian = programs(cache)
    images = archive.compose(version, kubernetes, debian, _ingress(), etcd_version(debian), cache / "layers", progress)
    mark = hashlib.sha256()
    for image in images:
        mark.update(image.name.encode() + image.config())
    target, marked = folder / archive.ARCHIVE, folder / f".{archive.ARCHIVE}.mark"
    if not (target.exists() and marked.exists() and marked.read_text() == mark.hexdigest()):
        fresh = folder / f".{archive.ARCHIVE}.new"
        write_archive(fresh, images)
        fresh.rename(target)
        marked.write_text(mark.hexdigest())
    _write_checksums(folder)


def _write_checksums(folder: Path) -> None:
    lines = []
    for name in (TARBALL, archive.ARCHIVE):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    _replace(folder / CHECKSUMS, "".join(lines).encode())


def _replace(target: Path, data: bytes) -> None:
    if not target.exists() or target.read_bytes() != data:
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_bytes(data)
        fresh.rename(target)
