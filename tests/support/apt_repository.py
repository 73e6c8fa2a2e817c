"""An apt repository in the layout of PostgreSQL's own archive (PGDG), composed of Debian's packages and signed here.

PGDG's archive is not within reach of every machine that tests run on; Debian's is. The packages are those of another
suite of Debian, with whatever else they need there: apt resolves that against the list of packages of the host that is
to install them.
"""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab.apt_repository import ARCHITECTURE, Key, publish, release, signing_key, stanza
from lab.machines import images

__all__ = ["Donor", "Key", "RepositoryError", "publish", "release", "serving", "signing_key", "sources", "stanza"]

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
