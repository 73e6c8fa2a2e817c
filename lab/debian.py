"""Packages of any Debian release as files, by an apt configuration separate from this machine's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class DebianError(Exception):
    """Packages cannot be downloaded. The text is one sentence for the user."""


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
        raise DebianError("apt on this machine has no Debian mirror. Set SLIPWAY_DEBIAN_MIRROR to the URL of one.")
    return addresses[0]


def extract(suite: str, packages: Sequence[str], target: Path) -> list[str]:
    """Extract the newest packages of a release to a folder; returns the names of their files. Nothing is installed."""
    with tempfile.TemporaryDirectory(prefix="slipway-apt-") as name:
        root = Path(name)
        root.chmod(0o755)
        for part in ("lists/partial", "archives/partial"):
            (root / part).mkdir(parents=True)
        (root / "status").touch()
        (root / "sources.list").write_text(f"deb [signed-by={KEYRING} arch=amd64] {mirror()} {suite} main\n")
        (root / "apt.conf").write_text(
            f'Dir::State "{root}";\nDir::State::lists "{root}/lists";\nDir::State::status "{root}/status";\n'
            f'Dir::Cache "{root}";\nDir::Etc::sourcelist "{root}/sources.list";\nDir::Etc::sourceparts "-";\n'
            'APT::Architecture "amd64";\nAPT::Architectures {"amd64";};\nAcquire::Languages "none";\n'
            'APT::Sandbox::User "root";\nAcquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        )
        environment = {**os.environ, "APT_CONFIG": str(root / "apt.conf")}
        for command in (["apt-get", "-q", "update"], ["apt-get", "-q", "download", *packages]):
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise DebianError(
                    f"{' '.join(command)} for Debian {suite} failed: {(done.stderr or done.stdout).strip()[-400:]}"
                )
        files = sorted(root.glob("*.deb"))
        for package in files:
            subprocess.run(["dpkg-deb", "-x", str(package), str(target)], check=True)
        return [path.name for path in files]
