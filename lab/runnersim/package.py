"""Builds the Debian packages of the simulated runner, and an apt repository of them in the layout of GitLab's.

As GitLab's: `gitlab-runner` depends on `gitlab-runner-helper-images` of the same version, and its maintainer scripts
create the user, write the systemd unit, and stop and start the service whatever it does.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import apt_repository
from lab.secrets import make_private_dir, write_private

HERE = Path(__file__).parent
VERSIONS = ("19.3.0", "19.2.1")
"""The version that the platform installs, and one to upgrade from."""
SUITES = ("trixie", "bookworm")
PUBLIC_PATH = "/runner/gitlab-runner"
"""Path on the release mirror; on packages.gitlab.com it is the same."""
EPOCH = (2026, 1, 1, 0, 0, 0)
MAIN = """\
import sys
from gitlab_runner.main import main
sys.exit(main(sys.argv[1:], "{version}-simulation"))
"""
CONTROL = """\
Package: gitlab-runner
Version: {version}-1
Architecture: amd64
Maintainer: Slipway <slipway@localhost>
Depends: python3 (>= 3.11), git, util-linux, gitlab-runner-helper-images (= {version}-1)
Description: simulation of GitLab Runner for the lab of Slipway
"""
HELPER_CONTROL = """\
Package: gitlab-runner-helper-images
Version: {version}-1
Architecture: all
Maintainer: Slipway <slipway@localhost>
Description: empty package of the simulation of GitLab Runner, which needs no helper images
"""


def program(version: str) -> bytes:
    """/usr/bin/gitlab-runner: a zip file of the runtime with a `#!` line in front. Equal inputs give equal bytes."""
    files = {f"gitlab_runner/{path.name}": path.read_bytes() for path in (HERE / "runtime").glob("*.py")}
    files["__main__.py"] = MAIN.format(version=version).encode()
    buffer = io.BytesIO(b"#!/usr/bin/python3 -I\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), files[name])
    return buffer.getvalue()


def _build(folder: Path, control: str, files: dict[str, tuple[bytes, int]]) -> Path:
    """Build a package from its files and maintainer scripts (`DEBIAN/…`)."""
    fields = dict(line.split(": ", 1) for line in control.splitlines())
    target = folder / f"{fields['Package']}_{fields['Version']}_{fields['Architecture']}.deb"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name) / "root"
        for path, (content, mode) in {"DEBIAN/control": (control.encode(), 0o644), **files}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        root.chmod(0o755)
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(target)]
        subprocess.run(command, check=True, capture_output=True)
    return target


def build(version: str, folder: Path) -> list[Path]:
    """Both packages of a version."""
    scripts = {
        f"DEBIAN/{name}": ((HERE / "debian" / name).read_bytes(), 0o755) for name in ("postinst", "prerm", "postrm")
    }
    note = b"The simulation of GitLab Runner needs no helper images.\n"
    return [
        _build(
            folder, CONTROL.format(version=version), {"usr/bin/gitlab-runner": (program(version), 0o755), **scripts}
        ),
        _build(
            folder,
            HELPER_CONTROL.format(version=version),
            {"usr/lib/gitlab-runner/helper-images/README": (note, 0o644)},
        ),
    ]


def digest() -> str:
    """Changes with everything that is in the repository."""
    value = hashlib.sha256(repr((VERSIONS, SUITES)).encode())
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            value.update(str(path.relative_to(HERE)).encode() + path.read_bytes())
    return value.hexdigest()[:16]


def prepare(folder: Path, home: Path) -> str:
    """Fill the folder that the mirror serves under PUBLIC_PATH; returns the fingerprint of the signing key.

    `home` is the directory of the signing key, which stays: hosts trust it. Fast when nothing changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / ".digest"
    with _locked(folder), apt_repository.signing_key(make_private_dir(home), expires="0") as key:
        if mark.exists() and mark.read_text() == f"{digest()} {key.fingerprint}":
            return key.fingerprint
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        fresh.chmod(0o755)
        try:
            (fresh / "packages").mkdir()
            archives = [archive for version in VERSIONS for archive in build(version, fresh / "packages")]
            for suite in SUITES:
                apt_repository.publish(fresh / "debian", suite, archives)
                key.sign(fresh / "debian", suite)
            shutil.rmtree(folder / "debian", ignore_errors=True)
            (fresh / "debian").rename(folder / "debian")
            (folder / "binaries").mkdir(exist_ok=True)
            for version in VERSIONS:
                (folder / "binaries" / f"gitlab-runner-{version}").write_bytes(program(version))
            (folder / "gpgkey").write_bytes(key.armored)
        finally:
            shutil.rmtree(fresh)
        write_private(mark, f"{digest()} {key.fingerprint}")
        return key.fingerprint


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
