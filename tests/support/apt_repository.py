"""An apt repository in the layout of PostgreSQL's own archive (PGDG), composed of Debian's packages and signed here.

PGDG's archive is not within reach of every machine that tests run on; Debian's is. The packages are those of Debian's
development suite, with whatever else they need there in place of what a given host has: apt resolves that against the
host's own list of packages.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
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

DONOR = "sid"
"""The suite of Debian that the packages are taken from."""
COMPONENT, ARCHITECTURE = "main", "amd64"


class RepositoryError(Exception):
    """The repository cannot be composed, with the end of what apt printed."""


def sources(suite: str, mirror: images.Mirror, donor: str = DONOR) -> str:
    """The host's suites and the donor, as apt reads them."""
    signed = f"Components: main\nSigned-By: {mirror.keyring}\n"
    archive = mirror.archive or "http://deb.debian.org/debian"
    security = mirror.security or "http://deb.debian.org/debian-security"
    return (
        f"Types: deb\nURIs: {archive}\nSuites: {suite} {suite}-updates {donor}\n{signed}\n"
        f"Types: deb\nURIs: {security}\nSuites: {suite}-security\n{signed}"
    )


def download(work: Path, suite: str, packages: Sequence[str], status: str) -> list[Path]:
    """The packages, with all that they need on a host that has the packages in `status`, in versions of the donor."""
    for name in ("etc", "state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "etc/debian.sources").write_text(sources(suite, images.machine_mirror()))
    (work / "status").write_text(status)
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
    apt = ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in options.items())]
    install = ["--yes", "--no-install-recommends", "--download-only", f"--target-release={DONOR}", "install"]
    for arguments in (["update"], [*install, *packages]):
        done = subprocess.run([*apt, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RepositoryError(f"{' '.join(arguments)}: {done.stdout[-2000:]}")
    return sorted((work / "cache/archives").glob("*.deb"))


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
    pool.mkdir(parents=True)
    entries = []
    for archive in archives:
        shutil.copyfile(archive, pool / archive.name)
        fields = ["dpkg-deb", "--field", str(archive)]
        control = subprocess.run(fields, check=True, stdout=subprocess.PIPE, text=True).stdout
        entries.append(stanza(control, f"pool/{COMPONENT}/{archive.name}", archive.read_bytes()))
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


def sign(folder: Path, suite: str) -> bytes:
    """Sign the release file by a key made for it, and return the public key as apt's keyrings hold it."""
    dist = folder / "dists" / suite
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:  # the path of its agent's socket has to be short
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        try:
            subprocess.run([*gpg, "--quick-generate-key", "Slipway tests", "ed25519", "sign", "2d"], check=True)
            written = ["--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release")]
            subprocess.run([*gpg, "--digest-algo", "SHA512", *written], check=True)
            return subprocess.run([*gpg, "--export"], check=True, stdout=subprocess.PIPE).stdout
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
