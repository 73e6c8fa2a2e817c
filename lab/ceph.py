"""Ceph for the lab: a container image composed from Debian's packages, and cephadm, as a release would bring them.

Debian's sid has the Ceph that production runs; its packages are signed, and no registry is asked. On days when they
cannot be installed together, as happens in sid, those of Debian's next release are taken. What is found is composed
once and kept in the cache; a lab stays with the release it was started with until it is removed:

    layer 1   Debian's packages as they are
    layer 2   the adjustments below
    layer 3   a mark that makes a second digest of the same Ceph: the image to upgrade to
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
"""In the order of trying."""
FLOOR = (20, 2, 4)
"""The first release of its series that is safe against CVE-2025-30156."""
BUILD_MEGABYTES = 2500
PUBLIC_PATH = "/ceph"
"""Where the release mirror serves what download.ceph.com has at its root."""

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
    # What these call without depending on it.
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
    # Volumes are loop devices here, which ceph-volume passes over unless told otherwise.
    "CEPH_VOLUME_ALLOW_LOOP_DEVICES": "1",
}
UPGRADE_MARK = ("etc/ceph-image", "the second build of the same packages\n")


@dataclass(frozen=True, slots=True)
class Release:
    """What a lab's hosts find."""

    version: str
    package_version: str
    digest: str
    upgrade_digest: str
    cephadm_checksum: str
    suite: str = SUITES[0]

    @property
    def cephadm_path(self) -> str:
        """Where download.ceph.com keeps cephadm."""
        return f"rpm-{self.version}/el9/noarch/cephadm"

    @property
    def note(self) -> str:
        return f"Ceph is {self.package_version} of Debian {self.suite}, in an image composed here."


def recipe_hash() -> str:
    recipe = (SUITES[0], PACKAGES, images.PATHS_EXCLUDED, images.PATHS_KEPT, FORK, ENVIRONMENT, UPGRADE_MARK)
    return hashlib.sha256(repr((recipe, _sources(SUITES[0]))).encode()).hexdigest()[:12]


def folder(settings: Settings) -> Path:
    """What is kept of the composition beside the image itself: cephadm and the release's description."""
    return settings.cache_dir / "ceph" / recipe_hash()


def mirror_dir(settings: Settings) -> Path:
    """The folder that the release mirror serves under `PUBLIC_PATH`."""
    return settings.state_dir / "mirror" / "ceph"


def composed(settings: Settings) -> Release | None:
    """The release in the cache, if it is there whole."""
    release = _read_release(folder(settings))
    return release if release and _is_whole(settings, release) else None


def _standing(settings: Settings) -> Release | None:
    """The release that this lab was started with, as long as it is there whole: its cluster runs that one."""
    release = read_release(settings)
    if release is None or not _is_whole(settings, release):
        return None
    served = mirror_dir(settings) / release.cephadm_path
    return release if served.exists() and _checksum(served) == release.cephadm_checksum else None


def _is_whole(settings: Settings, release: Release) -> bool:
    storage = registry.storage(settings)
    return all(storage.holds(IMAGE, digest) for digest in (release.digest, release.upgrade_digest))


def _prune(settings: Settings, newest: Release) -> None:
    """Remove older releases that no lab was started with."""
    used = [release for path in settings.state_root.glob("*/mirror/ceph") if (release := _read_release(path))]
    kept = {digest for release in (newest, *used) for digest in (release.digest, release.upgrade_digest)}
    registry.storage(settings).keep(IMAGE, kept)
    for old in (settings.cache_dir / "ceph").iterdir():
        if old.is_dir() and old != folder(settings):
            builds.remove_folder(old)


def prepare(settings: Settings, progress: Callable[[str], None]) -> Release:
    """The release for this lab, composed first if the cache has none; then served by its mirror and its registry."""
    registry.ensure_program(settings)
    with builds.locked(settings.cache_dir / "ceph/lock"):
        if release := _standing(settings):
            return release
        release = composed(settings)
        if release is None:
            release = _compose(settings, progress)
            _prune(settings, release)
        _serve(settings, release)
        return release


def _serve(settings: Settings, release: Release) -> None:
    """Put cephadm where the mirror serves it; the description last, as the sign that all is there."""
    served = make_private_dir(mirror_dir(settings))
    for old in served.glob("rpm-*"):
        shutil.rmtree(old)
    target = served / release.cephadm_path
    target.parent.mkdir(parents=True)
    shutil.copyfile(folder(settings) / "cephadm", target)
    (served / "release.json").write_text(json.dumps(asdict(release)), encoding="utf-8")


def read_release(settings: Settings) -> Release | None:
    """What `prepare` decided for this lab; None when it never ran."""
    return _read_release(mirror_dir(settings))


def _read_release(place: Path) -> Release | None:
    path = place / "release.json"
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


def _sources(suite: str) -> str:
    mirror = images.machine_mirror()
    if mirror.archive is None:
        return ""
    return f"Types: deb\nURIs: {mirror.archive}\nSuites: {suite}\nComponents: main\nSigned-By: {mirror.keyring}\n"


def _compose(settings: Settings, progress: Callable[[str], None]) -> Release:
    target = folder(settings)
    free = shutil.disk_usage(target.parent).free // 2**20
    if free < BUILD_MEGABYTES:
        raise MachineError(
            f"{target.parent} has {free} MB free; composing the Ceph image needs {BUILD_MEGABYTES} MB: make room "
            "there or set SLIPWAY_CACHE_ROOT to another disk"
        )
    with builds.work_folder(target) as work:
        release = _compose_in(work, settings, progress)
    progress(f"Ceph {release.package_version} is composed")
    return release


def _compose_in(work: Path, settings: Settings, progress: Callable[[str], None]) -> Release:
    target = folder(settings)
    taken = _first(work, progress)
    progress("writing the image")
    # The interpreter of the hosts may be an older one than that of the suite the package is made for.
    (work / "cephadm.packaged").write_bytes(taken.cephadm)
    zipapp.create_archive(work / "cephadm.packaged", work / "cephadm", interpreter="/usr/bin/env python3")
    storage = registry.storage(settings)
    storage.root.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    base = oci.Layer(storage.take(taken.archive), f"packages of Debian {taken.suite}: {', '.join(PACKAGES)}")
    adjusted = oci.Layer(storage.add(oci.layer(taken.adjusted)), "adjustments for the lab")
    mark = oci.Layer(storage.add(oci.layer(dict([UPGRADE_MARK]))), "mark of the second build")
    settings_of_image = {
        "Env": [f"{key}={value}" for key, value in ENVIRONMENT.items()],
        "Cmd": ["/bin/bash"],
        # cephadm finds images on a host by the first.
        "Labels": {"ceph": "True", "org.opencontainers.image.version": taken.package_version},
    }
    tag = f"v{taken.version}"
    release = Release(
        version=taken.version,
        package_version=taken.package_version,
        digest=storage.publish(IMAGE, tag, (base, adjusted), settings_of_image, created),
        upgrade_digest=storage.publish(IMAGE, f"{tag}-upgrade", (base, adjusted, mark), settings_of_image, created),
        cephadm_checksum=_checksum(work / "cephadm"),
        suite=taken.suite,
    )
    target.mkdir(exist_ok=True)
    (work / "cephadm").replace(target / "cephadm")
    (target / "release.json").write_text(json.dumps(asdict(release), indent=1) + "\n", encoding="utf-8")
    return release


@dataclass(frozen=True, slots=True)
class _Taken:
    """The packages of one suite, and what is made of them."""

    suite: str
    archive: Path
    package_version: str
    version: str
    cephadm: bytes
    adjusted: dict[str, str]


def _first(work: Path, progress: Callable[[str], None]) -> _Taken:
    """The packages of the first suite that will do."""
    reasons = []
    for suite in SUITES:
        archive = work / f"{suite}.tar"
        try:
            _install(suite, work, archive, progress)
            found = _read(archive)
            package_version = _package_version(found["var/lib/dpkg/status"].decode(), "ceph-common")
            version = upstream_version(package_version)
            return _Taken(suite, archive, package_version, version, found["usr/sbin/cephadm"], adjustments(found))
        except MachineError as error:
            archive.unlink(missing_ok=True)
            reasons.append(f"{suite}: {error}")
    raise MachineError(f"no Ceph image can be composed of Debian's packages ({'; '.join(reasons)})")


def _install(suite: str, work: Path, target: Path, progress: Callable[[str], None]) -> None:
    sources = work / "debian.sources"
    sources.write_text(_sources(suite), encoding="utf-8")
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


def _read(archive: Path) -> dict[str, bytes]:
    """The few files of the packages that something is made of."""
    wanted = {"usr/sbin/cephadm", "var/lib/dpkg/status", SITECUSTOMIZE, MGR_MODULE}
    found = {}
    with tarfile.open(archive) as packed:
        for member in packed:
            name = member.name.removeprefix("./")
            if name in wanted and (file := packed.extractfile(member)):
                found[name] = file.read()
    if missing := sorted(wanted - set(found)):
        raise MachineError(
            f"the packages have no {', '.join(missing)} any more; they were last composed with 20.2.4: lab/ceph.py has "
            "to follow"
        )
    return found


def adjustments(found: Mapping[str, bytes]) -> dict[str, str]:
    """What is changed in files of the packages, as packaged for Python 3.14."""
    return {
        SITECUSTOMIZE: found[SITECUSTOMIZE].decode() + FORK,
        MGR_MODULE: _with_notify_types(found[MGR_MODULE].decode()),
    }


def _with_notify_types(module: str) -> str:
    """Modules need not say what they listen to, but the loader asks: each start would file 21 reports of a crash."""
    changed = re.sub(r"^(class MgrModule\(.*\):\n)", r"\1    NOTIFY_TYPES: list = []\n", module, count=1, flags=re.M)
    if changed == module:
        raise MachineError("ceph-mgr's MgrModule is not where it was in 20.2.4: lab/ceph.py has to follow")
    return changed


def _package_version(status: str, package: str) -> str:
    found = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (.+)$", status, re.M)
    assert found, f"{package} is installed, yet dpkg does not know its version"
    return found[1]


def upstream_version(package_version: str) -> str:
    """`20.2.4` of `20.2.4+ds-2`, not below the floor."""
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)\.(\d+)", package_version)
    numbers = tuple(int(number) for number in found.groups()) if found else ()
    if numbers < FLOOR:
        floor = ".".join(str(number) for number in FLOOR)
        raise MachineError(
            f"this machine's Debian mirror has Ceph {package_version} and {floor} is the least that is safe "
            "(CVE-2025-30156): let apt on this machine use a mirror that is up to date"
        )
    return ".".join(str(number) for number in numbers)


def _checksum(path: Path) -> str:
    """As Ansible's get_url takes it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
