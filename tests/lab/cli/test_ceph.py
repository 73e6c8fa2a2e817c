"""The Ceph release: composed once from packages that fit, adjusted, described, served."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import ceph, oci, registry
from lab.machines.base import MachineError
from lab.settings import Settings

STATUS = """\
Package: ceph
Status: install ok installed
Version: 1.0

Package: ceph-common
Status: install ok installed
Architecture: amd64
Version: {version}
Description: common
"""
MODULE = """\
import ceph_module


class MgrModule(ceph_module.BaseMgrModule, MgrModuleLoggingMixin):
    MGR_POOL_NAME = ".mgr"
"""


def silent(text: str) -> None:
    return


def packages(work: Path, target: Path, version: str = "20.2.4+ds-2") -> None:
    """The files of mmdebstrap's output that `lab.ceph` reads."""
    program = work / "cephadm.zip"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("__main__.py", "print('cephadm')\n")
    files = {
        "./usr/sbin/cephadm": b"#!/usr/bin/python3.14\n" + program.read_bytes(),
        "./var/lib/dpkg/status": STATUS.format(version=version).encode(),
        f"./{ceph.SITECUSTOMIZE}": b"import this\n",
        f"./{ceph.MGR_MODULE}": MODULE.encode(),
    }
    with tarfile.open(target, "w") as archive:
        for name, content in files.items():
            path = work / "one"
            path.write_bytes(content)
            archive.add(path, name)


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets of all installations of packages; the registry program is not installed."""
    done: list[str] = []

    def install(suite: str, work: Path, target: Path, progress: Callable[[str], None]) -> None:
        done.append(target.name)
        packages(work, target)

    monkeypatch.setattr(ceph, "_install", install)
    monkeypatch.setattr(registry, "ensure_program", registry.program)
    return done


def test_the_image_is_composed_once_for_all_labs(settings: Settings, compositions: list[str]) -> None:
    release = ceph.prepare(settings, silent)
    assert release.version == "20.2.4"
    assert ceph.read_release(settings) == release
    assert ceph.prepare(settings, silent) == release
    other = Settings("other", 3, settings.state_root, settings.cache_root)
    assert ceph.prepare(other, silent) == release
    assert len(compositions) == 1
    assert not list((settings.cache_dir / "ceph").glob("*.building"))


def test_a_lab_keeps_its_release_and_the_next_has_the_newer(
    settings: Settings, compositions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ceph.prepare(settings, silent)
    monkeypatch.setattr(ceph, "PACKAGES", (*ceph.PACKAGES, "another"))
    monkeypatch.setattr(ceph, "UPGRADE_MARK", ("etc/mark", "another\n"))
    other = Settings("other", 3, settings.state_root, settings.cache_root)
    second = ceph.prepare(other, silent)
    assert second.upgrade_digest != first.upgrade_digest
    assert ceph.prepare(settings, silent) == first
    # The first lab is removed; the next composition removes its image.
    shutil.rmtree(settings.state_dir)
    monkeypatch.setattr(ceph, "PACKAGES", (*ceph.PACKAGES, "more"))
    ceph.prepare(Settings("third", 4, settings.state_root, settings.cache_root), silent)
    storage = registry.storage(settings)
    assert storage.has_image(ceph.IMAGE, second.upgrade_digest)
    assert not storage.has_image(ceph.IMAGE, first.upgrade_digest)
    assert len(compositions) == 3


def test_a_suite_with_incompatible_packages_is_skipped(
    settings: Settings, compositions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(suite: str, work: Path, target: Path, progress: Callable[[str], None]) -> None:
        if suite in broken:
            raise MachineError("unmet dependencies")
        packages(work, target, "20.2.5-1")

    monkeypatch.setattr(ceph, "_install", install)
    broken = set(ceph.SUITES)
    with pytest.raises(MachineError, match=r"sid: unmet dependencies; forky: unmet dependencies"):
        ceph.prepare(settings, silent)
    assert ceph.read_release(settings) is None
    broken = {"sid"}
    assert "20.2.5-1 of Debian forky" in ceph.prepare(settings, silent).note


def test_an_image_without_a_layer_is_composed_again(settings: Settings, compositions: list[str]) -> None:
    release = ceph.prepare(settings, silent)
    storage = registry.storage(settings)
    manifest = json.loads(storage.path(release.digest).read_bytes())
    storage.path(manifest["layers"][0]["digest"]).unlink()
    ceph.prepare(settings, silent)
    assert len(compositions) == 2


def test_two_digests_share_their_layers_and_differ_by_a_small_one(settings: Settings, compositions: list[str]) -> None:
    release = ceph.prepare(settings, silent)
    storage = registry.storage(settings)
    first, second = (
        json.loads(storage.path(digest).read_bytes())["layers"] for digest in (release.digest, release.upgrade_digest)
    )
    assert first == second[:2]
    assert second[2]["size"] <= 10240
    manifest = json.loads(storage.path(release.digest).read_bytes())
    config = json.loads(storage.path(manifest["config"]["digest"]).read_bytes())
    assert "CEPH_VOLUME_ALLOW_LOOP_DEVICES=1" in config["config"]["Env"]
    assert config["config"]["Labels"]["ceph"] == "True"
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in first]


def test_cephadm_uses_the_python_of_the_host(settings: Settings, compositions: list[str]) -> None:
    release = ceph.prepare(settings, silent)
    served = ceph.mirror_dir(settings) / "rpm-20.2.4/el9/noarch/cephadm"
    assert served.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert zipfile.is_zipfile(served)
    described = ceph.describe(settings, release, "https://198.19.255.25:8461")
    assert described["cephadm_url"] == "https://198.19.255.25:8461/ceph/rpm-20.2.4/el9/noarch/cephadm"
    assert described["cephadm_checksum"].startswith("sha256:")
    assert described["image"] == f"{registry.address(settings)}/ceph/ceph@{release.digest}"
    served.write_text("damaged")
    ceph.prepare(settings, silent)
    assert zipfile.is_zipfile(served)


def test_adjusted_files_keep_their_content() -> None:
    adjusted = ceph.adjustments({ceph.SITECUSTOMIZE: b"import this\n", ceph.MGR_MODULE: MODULE.encode()})
    assert adjusted[ceph.SITECUSTOMIZE].startswith("import this\n")
    compile(adjusted[ceph.SITECUSTOMIZE], "sitecustomize.py", "exec")
    assert "LoggingMixin):\n    NOTIFY_TYPES: list = []\n    MGR_POOL_NAME" in adjusted[ceph.MGR_MODULE]
    with pytest.raises(MachineError, match="has no class MgrModule"):
        ceph.adjustments({ceph.SITECUSTOMIZE: b"", ceph.MGR_MODULE: b"class Other:\n"})


@pytest.mark.parametrize(
    ("packaged", "version"), [("20.2.4+ds-2", "20.2.4"), ("20.2.10-1", "20.2.10"), ("1:21.2.0-1", "21.2.0")]
)
def test_a_secure_version_is_accepted(packaged: str, version: str) -> None:
    assert ceph.upstream_version(packaged) == version


@pytest.mark.parametrize("packaged", ["18.2.7+ds-1", "20.2.3-1", "20.2~rc1"])
def test_a_vulnerable_version_is_rejected(packaged: str) -> None:
    with pytest.raises(MachineError, match=r"CVE-2025-30156.*mirror that is up to date"):
        ceph.upstream_version(packaged)


def test_a_layer_unpacks_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(oci.layer({"etc/one": "1\n", "usr/share/two": "2\n"}))
    with tarfile.open(tmp_path / "layer.tar") as layer:
        layer.extractall(tmp_path / "root", filter="tar")
    assert (tmp_path / "root/etc/one").read_text() == "1\n"
