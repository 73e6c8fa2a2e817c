"""Builds the simulated release: rke2.linux-amd64.tar.gz and sha256sum-amd64.txt, in the layout of the official ones.

Its programs are Debian 13's etcd and openssl, downloaded by apt into a cache, independent of this machine's release.
Equal inputs give equal bytes.
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
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TARBALL = "rke2.linux-amd64.tar.gz"
CHECKSUMS = "sha256sum-amd64.txt"
SUITE = "trixie"
PACKAGES = ("etcd-server", "etcd-client", "openssl")
PROGRAMS = ("etcd", "etcdctl", "openssl")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
VERSION = re.compile(r"v\d+\.\d+\.\d+(-rc\d+)?\+rke2r\d+")
EPOCH = (2026, 1, 1, 0, 0, 0)
EPOCH_SECONDS = 1767225600


class PackageError(Exception):
    """The release cannot be built; the message names what is missing."""


def mirror() -> str:
    """The Debian mirror of this machine: `SLIPWAY_DEBIAN_MIRROR`, else the first that apt is configured with."""
    if chosen := os.environ.get("SLIPWAY_DEBIAN_MIRROR"):
        return chosen
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian",
         "Label: Debian", "Component: main"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    addresses = listed.stdout.split()
    if not addresses:
        raise PackageError("apt on this machine has no Debian mirror. Set SLIPWAY_DEBIAN_MIRROR to the URL of one.")
    return addresses[0]


def fetch_programs(folder: Path) -> None:
    """Download Debian 13's programs to `folder`, with an apt configuration separate from this machine's."""
    with tempfile.TemporaryDirectory(prefix="slipway-apt-") as name:
        root = Path(name)
        root.chmod(0o755)
        for part in ("lists/partial", "archives/partial"):
            (root / part).mkdir(parents=True)
        (root / "status").touch()
        (root / "sources.list").write_text(f"deb [signed-by={KEYRING} arch=amd64] {mirror()} {SUITE} main\n")
        (root / "apt.conf").write_text(
            f'Dir::State "{root}";\nDir::State::lists "{root}/lists";\nDir::State::status "{root}/status";\n'
            f'Dir::Cache "{root}";\nDir::Etc::sourcelist "{root}/sources.list";\nDir::Etc::sourceparts "-";\n'
            'APT::Architecture "amd64";\nAPT::Architectures {"amd64";};\nAcquire::Languages "none";\n'
            'APT::Sandbox::User "root";\nAcquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        )
        environment = {**os.environ, "APT_CONFIG": str(root / "apt.conf")}
        for command in (["apt-get", "-q", "update"], ["apt-get", "-q", "download", *PACKAGES]):
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PackageError(
                    f"{' '.join(command)} for Debian {SUITE} failed: {(done.stderr or done.stdout).strip()[-400:]}"
                )
        for package in sorted(root.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root / "tree")], check=True)
        staging = folder.with_name(f".{folder.name}.{os.getpid()}")
        staging.mkdir(parents=True)
        for program in PROGRAMS:
            shutil.copyfile(root / "tree" / "usr" / "bin" / program, staging / program)
            (staging / program).chmod(0o755)
        packages = [path.name for path in sorted(root.glob("*.deb"))]
        (staging / "packages.json").write_text(json.dumps(packages))
        try:
            staging.rename(folder)
        except OSError:
            shutil.rmtree(staging)  # A concurrent build has created the folder already.


def programs(cache: Path) -> Path:
    """The folder with etcd, etcdctl and openssl of Debian 13, downloaded on first use."""
    folder = cache / "rke2sim" / f"programs-{SUITE}"
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


def _archive(version: str, cache: Path) -> bytes:
    """bin/rke2: a zip file with a `#!` line in front."""
    files = _library()
    folder = programs(cache)
    for program in PROGRAMS:
        files[f"bin/{program}"] = (folder / program).read_bytes()
    files["bin/traefik-simulation"] = (HERE / "release" / "traefik-simulation").read_bytes()
    files["__main__.py"] = (HERE / "release" / "main.py").read_bytes()
    digest = hashlib.sha256(version.encode())
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    release = {"version": version, "commit": f"simulation-{digest.hexdigest()[:12]}", "digest": digest.hexdigest()}
    files["release.json"] = json.dumps(release).encode()
    buffer = io.BytesIO(b"#!/usr/bin/python3 -IS\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | (0o755 if name.startswith("bin/") else 0o644)) << 16
            archive.writestr(entry, files[name])
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
    content = finished.read_bytes()
    checksum = f"{hashlib.sha256(content).hexdigest()}  {TARBALL}\n"
    for name, data in ((TARBALL, content), (CHECKSUMS, checksum.encode())):
        target = folder / name
        if not target.exists() or target.read_bytes() != data:
            fresh = folder / f".{name}.new"
            fresh.write_bytes(data)
            fresh.rename(target)
