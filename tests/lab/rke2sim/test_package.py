from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab.rke2sim import package

VERSION = "v1.36.3+rke2r1"


@pytest.fixture(scope="module")
def cache(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A separate cache with Debian's programs."""
    folder = tmp_path_factory.mktemp("cache")
    target = folder / "rke2sim" / programs.name
    target.parent.mkdir()
    target.symlink_to(programs)
    return folder


@pytest.fixture(scope="module")
def release(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    package.build(VERSION, folder, cache)
    return folder


def test_layout_is_the_official_one(release: Path) -> None:
    with tarfile.open(release / package.TARBALL) as tar:
        modes = {member.name: member.mode for member in tar if member.isfile()}
    assert modes == {
        "bin/rke2": 0o755,
        "bin/rke2-killall.sh": 0o755,
        "bin/rke2-uninstall.sh": 0o755,
        "lib/systemd/system/rke2-agent.env": 0o644,
        "lib/systemd/system/rke2-agent.service": 0o644,
        "lib/systemd/system/rke2-server.env": 0o644,
        "lib/systemd/system/rke2-server.service": 0o644,
        "share/rke2/LICENSE.txt": 0o644,
        "share/rke2/rke2-cis-sysctl.conf": 0o644,
    }


def test_checksum_file_names_the_tarball(release: Path) -> None:
    checksum, name = (release / package.CHECKSUMS).read_text().split()
    assert name == "rke2.linux-amd64.tar.gz"
    assert checksum == hashlib.sha256((release / name).read_bytes()).hexdigest()


def test_equal_inputs_give_equal_bytes(release: Path, cache: Path, tmp_path: Path) -> None:
    for finished in (cache / "rke2sim").glob("*.tar.gz"):
        finished.unlink()
    package.build(VERSION, tmp_path, cache)
    for name in (package.TARBALL, package.CHECKSUMS):
        assert (tmp_path / name).read_bytes() == (release / name).read_bytes()


def test_versions_differ(release: Path, cache: Path, tmp_path: Path) -> None:
    package.build("v1.36.2+rke2r1", tmp_path, cache)
    assert (tmp_path / package.CHECKSUMS).read_text() != (release / package.CHECKSUMS).read_text()


def test_malformed_version(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(package.PackageError):
        package.build("1.36.3", tmp_path, cache)


@pytest.fixture(scope="module")
def rke2(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(release / package.TARBALL) as tar:
        tar.extractall(folder, filter="data")
    return folder / "bin" / "rke2"


def run(rke2: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "RKE2_DATA_DIR": str(rke2.parent / "none")}
    return subprocess.run(
        [sys.executable, "-IS", str(rke2), *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_version_is_marked_as_a_simulation(rke2: Path) -> None:
    first, second = run(rke2, "--version").stdout.splitlines()
    assert first.startswith(f"rke2 version {VERSION} (simulation-")
    assert "simulation" in second


def test_needs_nothing_but_the_standard_library(rke2: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("nonsense: true\n")
    done = run(rke2, "etcd-snapshot", "nonsense")
    assert (done.returncode, "takes one of save, ls, delete, prune" in done.stderr) == (1, True)
    assert len(run(rke2, "token", "generate").stdout.strip()) == 32


@pytest.mark.parametrize("command", [("token", "rotate"), ("certificate", "rotate-ca"), ("secrets-encrypt", "rotate")])
def test_unsupported_commands_are_named(rke2: Path, command: tuple[str, str]) -> None:
    done = run(rke2, *command)
    assert done.returncode == 1
    assert f"the simulation of RKE2 does not support '{command[0]} {command[1]}'" in done.stderr


def test_units_are_accepted_by_systemd(release: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed on this machine")
    with tarfile.open(release / package.TARBALL) as tar:
        tar.extractall(tmp_path, filter="data")
    for unit in ("rke2-server", "rke2-agent"):
        path = tmp_path / "lib" / "systemd" / "system" / f"{unit}.service"
        path.write_text(path.read_text().replace("/usr/local/bin/rke2", str(tmp_path / "bin" / "rke2")))
        done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
