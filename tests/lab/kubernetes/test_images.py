"""The images of the lab's release: written by the lab, read by the simulated RKE2."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lab import debian
from lab.kubernetes import archive, build
from lab.kubernetes.images import Image, Link, files_tar, store_layer, write_archive
from lab.rke2sim.runtime import archives
from lab.rke2sim.runtime.layout import Layout, Release
from lab.rke2sim.runtime.log import Fatal

RUNTIME = "docker.io/rancher/rke2-runtime:v1.36.3-rke2r1"


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


def test_a_layer_has_the_folders_before_their_files() -> None:
    assert names(files_tar({"bin/a": b"a", "charts/": b""})) == ["bin", "charts", "bin/a"]


def test_equal_files_give_equal_layers(tmp_path: Path) -> None:
    first = store_layer(tmp_path / "1", files_tar({"bin/a": b"a"}))
    second = store_layer(tmp_path / "2", files_tar({"bin/a": b"a"}))
    assert (first.digest, first.diff_id) == (second.digest, second.diff_id)
    assert first.digest == hashlib.sha256(first.path.read_bytes()).hexdigest()


def test_an_archive_has_a_shared_layer_once(tmp_path: Path) -> None:
    shared, own = (store_layer(tmp_path, files_tar({name: name.encode()})) for name in ("shared", "own"))
    write_archive(tmp_path / "images.tar", [Image("a:1", (shared,), {}), Image("b:1", (shared, own), {})])
    with tarfile.open(tmp_path / "images.tar") as tar:
        assert tar.getnames().count(f"{shared.digest}.tar.gz") == 1
        file = tar.extractfile("manifest.json")
        assert file is not None
        listed = json.load(file)
        config = tar.extractfile(listed[1]["Config"])
        assert config is not None
        assert json.load(config)["rootfs"]["diff_ids"] == [f"sha256:{shared.diff_id}", f"sha256:{own.diff_id}"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    (layout.data / "data/v1/bin").mkdir(parents=True)
    layout.bin.symlink_to("data/v1/bin")
    layout.images.mkdir(parents=True)
    return layout


def test_the_runtime_is_extracted_once(layout: Layout, tmp_path: Path) -> None:
    files: dict[str, bytes | Path | Link] = {"bin/kubernetes": b"program", "bin/kubelet": Link("kubernetes")}
    layer = store_layer(tmp_path / "layers", files_tar({**files, "etc/other": b"x"}))
    write_archive(layout.images / archive.ARCHIVE, [Image(RUNTIME, (layer,), {})])
    release = Release("v1.36.3+rke2r1", "", {"runtime": RUNTIME})
    archives.extract_runtime(layout, release)
    assert (layout.bin / "kubelet").read_bytes() == b"program"
    assert (layout.bin / "kubernetes").stat().st_mode & 0o777 == 0o755
    assert not (layout.bin / "other").exists()
    (layout.images / archive.ARCHIVE).unlink()
    archives.extract_runtime(layout, release)


def test_a_missing_runtime_image_is_named(layout: Layout) -> None:
    with pytest.raises(Fatal, match=rf"failed to get runtime image {RUNTIME}: no archive in"):
        archives.extract_runtime(layout, Release("v1.36.3+rke2r1", "", {"runtime": RUNTIME}))


def test_images_have_the_versions_of_the_modules() -> None:
    found = archive.image_names("v1.36.3+rke2r1", "3.5.16")
    assert found["kubernetes"] == "docker.io/rancher/hardened-kubernetes:v1.36.3-rke2r1-lab"
    assert found["etcd"] == "docker.io/rancher/hardened-etcd:v3.5.16-lab"
    assert found["coredns"].endswith(f":{build.module_version('github.com/coredns/coredns')}-lab")


def test_other_versions_need_another_build() -> None:
    one = build.content_hash(["v1.36.3+rke2r1"])
    assert one == build.content_hash(["v1.36.3+rke2r1"])
    assert one != build.content_hash(["v1.36.3+rke2r1", "v1.36.2+rke2r1"])


def test_kubernetes_reports_the_version_of_the_release() -> None:
    flags = build.link_flags("v1.36.3+rke2r1")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3+rke2r1" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


def test_a_module_that_is_not_required_is_an_error() -> None:
    with pytest.raises(build.BuildError, match=r"requires no module example\.org/none"):
        build.module_version("example.org/none")


@pytest.mark.parametrize(
    ("shown", "is_own"), [("go1.26.8", True), ("go1.27.1", True), ("go1.24.4", False), ("devel", False), (None, False)]
)
def test_an_older_go_of_the_machine_is_replaced_by_debian_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str | None, is_own: bool
) -> None:
    extracted: list[tuple[str, tuple[str, ...], Path]] = []
    monkeypatch.setattr(debian, "extract", lambda *arguments: extracted.append(arguments))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if shown:
        (tmp_path / "go").write_text(f"#!/bin/sh\necho {shown}\n")
        (tmp_path / "go").chmod(0o755)
    go = build.find_go(tmp_path / "work", lambda text: None)
    if is_own:
        assert (go, extracted) == (tmp_path / "go", [])
    else:
        assert go == tmp_path / "work/usr/lib/go-1.26/bin/go"
        assert extracted == [("sid", ("golang-1.26-go", "golang-1.26-src"), tmp_path / "work")]


def test_a_machine_without_go_and_without_debian_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise debian.DebianError("apt-get -q update for Debian sid failed: no route")

    monkeypatch.setattr(debian, "extract", fail)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"has no Go 1\.26, and apt-get .* no route\. Install Go 1\.26 or newer"):
        build.find_go(tmp_path / "work", lambda text: None)


def test_the_build_before_is_kept_and_older_ones_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_build", lambda work, versions, progress: None)
    for moment, versions in enumerate((["v1.36.1"], ["v1.36.2"], ["v1.36.3"])):
        build.programs(tmp_path, versions, lambda text: None)
        os.utime(tmp_path / "kubernetes" / build.content_hash(versions), (moment, moment))
    kept = {path.name for path in (tmp_path / "kubernetes").glob("*/")}
    assert kept == {build.content_hash(["v1.36.2"]), build.content_hash(["v1.36.3"])}
