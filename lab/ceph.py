"""Ceph for the lab: a container image composed of Debian's packages, and cephadm, in the layout of a release.

Debian's sid has the Ceph version of production; its packages are signed, and no registry is needed. When they are not
installable, as happens in sid, those of Debian's testing are used. The image is composed once and cached; a lab keeps
the release that it was started with until it is removed:

    layer 1   Debian's packages, unmodified
    layer 2   the adjustments below
    layer 3   a marker file, which gives the same Ceph a second digest: the image to upgrade to
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import zipapp
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab import oci, registry
from lab.machines import builds, images
from lab.machines.base import MachineError
from lab.secrets import make_private_dir
from lab.settings import Settings

IMAGE = "ceph/ceph"
SUITES = ("sid", "forky")
"""In order of preference."""
FLOOR = (20, 2, 4)
"""The first release that fixes CVE-2025-30156."""
BUILD_MEGABYTES = 2500
PUBLIC_PATH = "/ceph"
"""Path on the release mirror that corresponds to the root of download.ceph.com."""

PACKAGES = (
    "ceph-mon",
    "ceph-mgr",
    "ceph-mgr-cephadm",
    "ceph-mgr-modules-core",
    "ceph-osd",
    "ceph-volume",
    "ceph-mds",
    "ceph-common",
    "cephadm",
    "radosgw",
    # Called by the packages above, but not among their dependencies.
    "ca-certificates",
    "hostname",
    "iproute2",
    "lvm2",
    "media-types",
    "nvme-cli",
    "openssh-client",
    "procps",
    "python3-bcrypt",
    "python3-routes",
    "smartmontools",
    "sudo",
    "udev",
    "util-linux",
)

SITECUSTOMIZE = "etc/python3.14/sitecustomize.py"
FORK = """
# Python 3.14 starts a helper process for multiprocessing, from a program that an embedded interpreter cannot name: the
# thread pools of ceph-mgr's modules then die with BrokenPipeError. Until 3.13 it forked, as here.
import os as _os

if _os.path.basename(_os.path.realpath("/proc/self/exe")) == "ceph-mgr":
    import multiprocessing as _multiprocessing

    _multiprocessing.set_start_method("fork", force=True)
"""
MGR_MODULE = "usr/share/ceph/mgr/mgr_module.py"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    # Volumes are loop devices in the lab; ceph-volume skips those by default.
    "CEPH_VOLUME_ALLOW_LOOP_DEVICES": "1",
}
UPGRADE_MARK = ("etc/ceph-image", "the second build of the same packages\n")


@dataclass(frozen=True, slots=True)
class Release:
    """The image and the cephadm that a lab's hosts download."""

    version: str
    package_version: str
    digest: str
    upgrade_digest: str
    cephadm_checksum: str
    suite: str = SUITES[0]

    @property
    def cephadm_path(self) -> str:
        """Path of cephadm on download.ceph.com."""
        return f"rpm-{self.version}/el9/noarch/cephadm"

    @property
    def note(self) -> str:
        return f"Ceph is {self.package_version} of Debian {self.suite}, in an image composed by the lab."


def recipe_hash() -> str:
    recipe = (SUITES[0], PACKAGES, images.PATHS_EXCLUDED, images.PATHS_KEPT, FORK, ENVIRONMENT, UPGRADE_MARK)
    return hashlib.sha256(repr((recipe, images.debian_sources(SUITES[0]))).encode()).hexdigest()[:12]


def folder(settings: Settings) -> Path:
    """Cache folder of cephadm and of the release's description; the image itself is in the registry's storage."""
    return settings.cache_dir / "ceph" / recipe_hash()


def mirror_dir(settings: Settings) -> Path:
    """The folder that the release mirror serves under `PUBLIC_PATH`."""
    return settings.state_dir / "mirror" / "ceph"


def composed(settings: Settings) -> Release | None:
    """The release in the cache, if it is complete."""
    release = _read_release(folder(settings))
    return release if release and _is_complete(settings, release) else None


def _current_release(settings: Settings) -> Release | None:
    """The release that this lab was started with, if it is complete: its cluster runs this one."""
    release = read_release(settings)
    if release is None or not _is_complete(settings, release):
        return None
    served = mirror_dir(settings) / release.cephadm_path
    return release if served.exists() and _checksum(served) == release.cephadm_checksum else None


def _is_complete(settings: Settings, release: Release) -> bool:
    storage = registry.storage(settings)
    return all(storage.has_image(IMAGE, digest) for digest in (release.digest, release.upgrade_digest))


def _prune(settings: Settings, newest: Release) -> None:
    """Remove older releases that no lab uses."""
    used = [release for path in settings.state_root.glob("*/mirror/ceph") if (release := _read_release(path))]
    digests_in_use = {digest for release in (newest, *used) for digest in (release.digest, release.upgrade_digest)}
    registry.storage(settings).prune(IMAGE, keep=digests_in_use)
    for old in (settings.cache_dir / "ceph").iterdir():
        if old.is_dir() and old != folder(settings):
            builds.remove_folder(old)


def prepare(settings: Settings, progress: Callable[[str], None]) -> Release:
    """Compose the release unless it is cached, then serve it by the lab's mirror and registry."""
    registry.ensure_program(settings)
    with builds.locked(settings.cache_dir / "ceph/lock"):
        if release := _current_release(settings):
            return release
        release = composed(settings)
        if release is None:
            release = _compose(settings, progress)
            _prune(settings, release)
        _serve(settings, release)
        return release


def _serve(settings: Settings, release: Release) -> None:
    """Copy cephadm into the mirror's folder. The description is written last: its presence means complete."""
    served = make_private_dir(mirror_dir(settings))
    for old in served.glob("rpm-*"):
        shutil.rmtree(old)
    target = served / release.cephadm_path
    target.parent.mkdir(parents=True)
    shutil.copyfile(folder(settings) / "cephadm", target)
    (served / "release.json").write_text(json.dumps(asdict(release)), encoding="utf-8")


def read_release(settings: Settings) -> Release | None:
    """The release that `prepare` chose for this lab; None before its first run."""
    return _read_release(mirror_dir(settings))


def _read_release(directory: Path) -> Release | None:
    path = directory / "release.json"
    return Release(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def describe(settings: Settings, release: Release, mirror_url: str) -> dict[str, str]:
    """The `ceph` section of lab.json."""
    name = f"{registry.address(settings)}/{IMAGE}"
    return {
        "image": f"{name}@{release.digest}",
        "upgrade_image": f"{name}@{release.upgrade_digest}",
        "version": release.version,
        "cephadm_url": f"{mirror_url}{PUBLIC_PATH}/{release.cephadm_path}",
        "cephadm_checksum": release.cephadm_checksum,
        "registry": registry.address(settings),
        "note": release.note,
    }


# Composition


def _compose(settings: Settings, progress: Callable[[str], None]) -> Release:
    target = folder(settings)
    free = shutil.disk_usage(target.parent).free // 2**20
    if free < BUILD_MEGABYTES:
        raise MachineError(
            f"{target.parent}: {free} MB are free, composing the Ceph image needs {BUILD_MEGABYTES} MB. Free space "
            "there or set SLIPWAY_CACHE_ROOT to a folder on another disk."
        )
    with builds.work_folder(target) as work:
        release = _compose_in(work, settings, progress)
    progress(f"Ceph {release.package_version} is composed")
    return release


def _compose_in(work: Path, settings: Settings, progress: Callable[[str], None]) -> Release:
    target = folder(settings)
    packages = _install_first_suite(work, progress)
    progress("writing the image")
    # Hosts may have an older Python than the suite of the package.
    (work / "cephadm.packaged").write_bytes(packages.cephadm)
    zipapp.create_archive(work / "cephadm.packaged", work / "cephadm", interpreter="/usr/bin/env python3")
    storage = registry.storage(settings)
    storage.root.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    base = oci.Layer(storage.move_in(packages.archive), f"packages of Debian {packages.suite}: {', '.join(PACKAGES)}")
    adjusted = oci.Layer(storage.add(oci.layer(packages.adjusted)), "adjustments for the lab")
    marker = oci.Layer(storage.add(oci.layer(dict([UPGRADE_MARK]))), "marker of the second build")
    image_settings = {
        "Env": [f"{key}={value}" for key, value in ENVIRONMENT.items()],
        "Cmd": ["/bin/bash"],
        # cephadm lists images by the label `ceph`.
        "Labels": {"ceph": "True", "org.opencontainers.image.version": packages.package_version},
    }
    tag = f"v{packages.version}"
    release = Release(
        version=packages.version,
        package_version=packages.package_version,
        digest=storage.publish(IMAGE, tag, (base, adjusted), image_settings, created),
        upgrade_digest=storage.publish(IMAGE, f"{tag}-upgrade", (base, adjusted, marker), image_settings, created),
        cephadm_checksum=_checksum(work / "cephadm"),
        suite=packages.suite,
    )
    target.mkdir(exist_ok=True)
    (work / "cephadm").replace(target / "cephadm")
    (target / "release.json").write_text(json.dumps(asdict(release), indent=1) + "\n", encoding="utf-8")
    return release


@dataclass(frozen=True, slots=True)
class _Packages:
    """The packages of one suite, and the files derived from them."""

    suite: str
    archive: Path
    package_version: str
    version: str
    cephadm: bytes
    adjusted: dict[str, str]


def _install_first_suite(work: Path, progress: Callable[[str], None]) -> _Packages:
    """Install the packages of the first suite in which they are installable."""
    reasons = []
    for suite in SUITES:
        archive = work / f"{suite}.tar"
        try:
            _install(suite, work, archive, progress)
            found = _read_files(archive)
            package_version = _package_version(found["var/lib/dpkg/status"].decode(), "ceph-common")
            version = upstream_version(package_version)
            return _Packages(suite, archive, package_version, version, found["usr/sbin/cephadm"], adjustments(found))
        except MachineError as error:
            archive.unlink(missing_ok=True)
            reasons.append(f"{suite}: {error}")
    raise MachineError(f"no Ceph image can be composed of Debian's packages: {'; '.join(reasons)}")


def _install(suite: str, work: Path, target: Path, progress: Callable[[str], None]) -> None:
    sources = work / "debian.sources"
    sources.write_text(images.debian_sources(suite), encoding="utf-8")
    argv = [
        "mmdebstrap",
        "--mode=root",
        "--format=tar",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        "--dpkgopt=force-unsafe-io",
        images.exclusion_hook(work, images.PATHS_EXCLUDED),
        *(f"--aptopt={key} {images.quote(value)}" for key, value in images.machine_apt_options().items()),
        suite,
        str(target),
        *([str(sources)] if sources.stat().st_size else []),
    ]
    images.run_with_progress(argv, f"Ceph of {suite}", work, lambda text, share: progress(f"{text} ({share:.0%})"))


def _read_files(archive: Path) -> dict[str, bytes]:
    """Extract the files that the release is derived from."""
    wanted = {"usr/sbin/cephadm", "var/lib/dpkg/status", SITECUSTOMIZE, MGR_MODULE}
    found = {}
    with tarfile.open(archive) as packed:
        for member in packed:
            name = member.name.removeprefix("./")
            if name in wanted and (file := packed.extractfile(member)):
                found[name] = file.read()
    if missing := sorted(wanted - set(found)):
        raise MachineError(
            f"the packages do not contain {', '.join(missing)} (last tested with 20.2.4). Adapt lab/ceph.py to this "
            "version."
        )
    return found


def adjustments(found: Mapping[str, bytes]) -> dict[str, str]:
    """Contents of the packages' files that are changed for Python 3.14."""
    return {
        SITECUSTOMIZE: found[SITECUSTOMIZE].decode() + FORK,
        MGR_MODULE: _with_notify_types(found[MGR_MODULE].decode()),
    }


def _with_notify_types(module: str) -> str:
    """Give NOTIFY_TYPES a default: the loader reads it from all modules; 21 without it would each report a crash."""
    changed = re.sub(r"^(class MgrModule\(.*\):\n)", r"\1    NOTIFY_TYPES: list = []\n", module, count=1, flags=re.M)
    if changed == module:
        raise MachineError(
            "ceph-mgr has no class MgrModule (last tested with 20.2.4). Adapt lab/ceph.py to this version."
        )
    return changed


def _package_version(status: str, package: str) -> str:
    found = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (.+)$", status, re.M)
    assert found, f"{package} is missing in dpkg's status file"
    return found[1]


def upstream_version(package_version: str) -> str:
    """`20.2.4` of `20.2.4+ds-2`; a version below FLOOR is an error."""
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)\.(\d+)", package_version)
    numbers = tuple(int(number) for number in found.groups()) if found else ()
    if numbers < FLOOR:
        floor = ".".join(str(number) for number in FLOOR)
        raise MachineError(
            f"this machine's Debian mirror has Ceph {package_version}; {floor} is required (CVE-2025-30156). "
            "Configure apt on this machine with a mirror that is up to date."
        )
    return ".".join(str(number) for number in numbers)


def _checksum(path: Path) -> str:
    """In the format of Ansible's get_url."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
