"""An apt repository in the layout of PostgreSQL's own archive (PGDG), composed of Debian's packages and signed here.

PGDG's archive is not within reach of every machine that tests run on; Debian's is. The packages are those of another
suite of Debian, with whatever else they need there: apt resolves that against the list of packages of the host that is
to install them.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab.machines import images

COMPONENT, ARCHITECTURE = "main", "amd64"
UNSTABLE = "sid"
"""Debian's development suite, which has no archive of security updates."""


class RepositoryError(Exception):
    """The repository cannot be composed, with the end of what apt printed."""


def sources(suite: str, donor: str, mirror: images.Mirror) -> str:
    """The suites of the host and that which packages are taken from, as apt reads them."""
    signed = f"Components: main\nSigned-By: {mirror.keyring}\n"
    archive = mirror.archive or "http://deb.debian.org/debian"
    security = mirror.security or "http://deb.debian.org/debian-security"
    secured = " ".join(f"{name}-security" for name in (suite, donor) if name != UNSTABLE)
    return (
        f"Types: deb\nURIs: {archive}\nSuites: {suite} {suite}-updates {donor}\n{signed}\n"
        f"Types: deb\nURIs: {security}\nSuites: {secured}\n{signed}"
    )


class Donor:
    """apt on this machine, as if it were on a host that has the packages in `status` and knew one more suite."""

    def __init__(self, work: Path, suite: str, donor: str, status: str) -> None:
        for name in ("etc", "state/lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        (work / "etc/debian.sources").write_text(sources(suite, donor, images.machine_mirror()))
        (work / "status").write_text(status)
        self.donor, self.archives = donor, work / "cache/archives"
        options = {
            "Dir::Etc::sourcelist": work / "etc/debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": work / "state",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "APT::Architecture": ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            **images.machine_apt_options(),
        }
        self.options = ["--quiet", *(f"--option={key}={value}" for key, value in options.items())]
        self.run("apt-get", "update")

    def run(self, program: str, *arguments: str) -> str:
        command = [program, *self.options, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RepositoryError(f"{program} {' '.join(arguments)}: {done.stdout[-2000:]}")
        return done.stdout

    def versions(self, package: str) -> list[str]:
        """All that the suites have, the newest first."""
        return [line.split("|")[1].strip() for line in self.run("apt-cache", "madison", package).splitlines()]

    def download(self, *packages: str, prefer: bool = False) -> list[Path]:
        """The packages with all that they need; `prefer` takes each from the donor in place of the host's suites."""
        target = [f"--target-release={self.donor}"] if prefer else []
        self.run("apt-get", "--yes", "--no-install-recommends", "--download-only", *target, "install", *packages)
        return sorted(self.archives.glob("*.deb"))


def stanza(control: str, filename: str, content: bytes) -> str:
    """The entry of a package in an index: its control fields, and where and what its file is."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{control.strip()}\nFilename: {filename}\nSize: {len(content)}\nSHA256: {digest}\n"


def release(suite: str, files: dict[str, bytes], now: datetime) -> str:
    """The release file of a suite, over its index files."""
    lines = [f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in files.items()]
    return "\n".join(
        [
            "Origin: Slipway tests",
            "Label: Slipway tests",
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
    """A key that signs release files, made for it."""

    def __init__(self, home: str) -> None:
        self.gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run([*self.gpg, "--quick-generate-key", "Slipway tests", "ed25519", "sign", "2d"], check=True)
        self.public = subprocess.run([*self.gpg, "--export"], check=True, stdout=subprocess.PIPE).stdout

    def sign(self, folder: Path, suite: str) -> None:
        """Make the signed release file of a suite, as apt wants it."""
        dist = folder / "dists" / suite
        files = ["--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release")]
        subprocess.run([*self.gpg, "--yes", "--digest-algo", "SHA512", *files], check=True)


@contextmanager
def signing_key() -> Iterator[Key]:
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:  # the path of its agent's socket has to be short
        try:
            yield Key(home)
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@contextmanager
def serving(folder: Path, address: str) -> Iterator[str]:
    """The URL at which the folder is served meanwhile."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """No line for each request."""

    server = ThreadingHTTPServer((address, 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
