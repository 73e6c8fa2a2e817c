"""A signed apt repository of a few packages: pool, index and release file."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

COMPONENT, ARCHITECTURE = "main", "amd64"


def stanza(control: str, filename: str, content: bytes) -> str:
    """The entry of a package in an index: its control fields, and where and what its file is."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{control.strip()}\nFilename: {filename}\nSize: {len(content)}\nSHA256: {digest}\n"


def release(suite: str, files: dict[str, bytes], now: datetime) -> str:
    """The release file of a suite, over its index files."""
    lines = [f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in files.items()]
    return "\n".join(
        [
            "Origin: Slipway lab",
            "Label: Slipway lab",
            f"Suite: {suite}",
            f"Codename: {suite}",
            f"Date: {now:%a, %d %b %Y %H:%M:%S} UTC",
            f"Architectures: {ARCHITECTURE}",
            f"Components: {COMPONENT}",
            "SHA256:",
            *lines,
            "",
        ]
    )


def publish(folder: Path, suite: str, archives: Sequence[Path]) -> None:
    """Lay files of packages out as a repository: pool, index and release file, not signed yet."""
    pool = folder / "pool" / COMPONENT
    pool.mkdir(parents=True, exist_ok=True)
    entries = []
    for archive in archives:
        name = re.sub(r"_[0-9]+%3a", "_", archive.name)  # an epoch is no part of the names in a pool
        shutil.copyfile(archive, pool / name)
        fields = ["dpkg-deb", "--field", str(archive)]
        control = subprocess.run(fields, check=True, stdout=subprocess.PIPE, text=True).stdout
        entries.append(stanza(control, f"pool/{COMPONENT}/{name}", archive.read_bytes()))
    index = "\n".join(entries).encode()
    files = {
        f"{COMPONENT}/binary-{ARCHITECTURE}/Packages": index,
        f"{COMPONENT}/binary-{ARCHITECTURE}/Packages.gz": gzip.compress(index, mtime=0),
    }
    for name, content in files.items():
        path = folder / "dists" / suite / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "dists" / suite / "Release").write_text(release(suite, files, datetime.now(UTC)))


class Key:
    """A key that signs release files; created in `home` when it has none."""

    def __init__(self, home: Path, expires: str) -> None:
        self._gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
        self._gpg += ["--pinentry-mode", "loopback", "--passphrase", ""]
        if not self._fingerprints():
            self._run("--quick-generate-key", "Slipway lab", "ed25519", "sign", expires)
        self.fingerprint = self._fingerprints()[0]
        self.public = self._run("--export")
        self.armored = self._run("--export", "--armor")

    def _run(self, *words: str) -> bytes:
        return subprocess.run([*self._gpg, *words], check=True, stdout=subprocess.PIPE).stdout

    def _fingerprints(self) -> list[str]:
        listed = self._run("--list-keys", "--with-colons").decode().splitlines()
        return [line.split(":")[9] for line in listed if line.startswith("fpr:")]

    def sign(self, folder: Path, suite: str) -> None:
        """Make the signed release file of a suite, as apt wants it."""
        dist = folder / "dists" / suite
        files = ["--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release")]
        self._run("--yes", "--digest-algo", "SHA512", *files)


@contextmanager
def signing_key(home: Path | None = None, expires: str = "2d") -> Iterator[Key]:
    """The key in a directory that only its owner can read, or a temporary one. gpg's agent is ended."""
    # The path of the agent's socket has to be short.
    with tempfile.TemporaryDirectory(prefix="gpg-") as temporary:
        folder = home or Path(temporary)
        try:
            yield Key(folder, expires)
        finally:
            subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=False)
