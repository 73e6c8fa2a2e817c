"""The lab's image registry: Debian's docker-registry, run by the daemon, over HTTPS with a certificate of the lab's CA.

The program is extracted from Debian's package into the cache; nothing is installed on the machine. All labs of a
machine share one storage, which only `lab.oci` writes: for hosts the registry is read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lab import direct
from lab.machines.base import MachineError
from lab.oci import Storage
from lab.pki import KeyPair
from lab.secrets import write_private
from lab.settings import Settings

log = logging.getLogger(__name__)

PACKAGE = "docker-registry"
PROGRAM = "usr/bin/docker-registry"
RESTART_SECONDS = 2.0
STOP_SECONDS = 5.0


def address(settings: Settings) -> str:
    """Host and port of the registry, as hosts use it."""
    return f"{settings.machine_address}:{settings.registry_port}"


def storage(settings: Settings) -> Storage:
    return Storage(settings.cache_dir / "registry")


def program(settings: Settings) -> Path:
    return settings.cache_dir / PACKAGE / PROGRAM


def ensure_program(settings: Settings) -> Path:
    """Download the package of this machine's Debian by apt, which verifies its signature, and extract it."""
    target = program(settings)
    folder = settings.cache_dir / PACKAGE
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-", dir=folder.parent) as name:
            work = Path(name)
            if not _download(work):
                # The package lists are out of date: their version is no longer on the mirror.
                _apt("update", work)
                if not _download(work):
                    raise MachineError(
                        f"apt on this machine cannot download {PACKAGE}. Run: apt-get download {PACKAGE}"
                    )
            package = next(work.glob("*.deb"))
            subprocess.run(["dpkg-deb", "--extract", str(package), str(work / "tree")], check=True)
            shutil.rmtree(folder, ignore_errors=True)
            (work / "tree").rename(folder)
    return target


def _download(folder: Path) -> bool:
    return _apt("download", folder, PACKAGE) and any(folder.glob("*.deb"))


def _apt(verb: str, folder: Path, *words: str) -> bool:
    command = ["apt-get", "--quiet", "--option=APT::Sandbox::User=root", verb, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        log.info("%s: %s", " ".join(command), (done.stderr or done.stdout).strip()[-400:])
    return done.returncode == 0


def configuration(settings: Settings, listen: str, certificate: KeyPair) -> str:
    """The configuration file of the registry, in JSON, which is valid YAML."""
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage(settings).root)},
                "maintenance": {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}},
            },
            "http": {
                "addr": listen,
                "tls": {
                    "certificate": str(certificate.certificate_path),
                    "key": str(certificate.key_path),
                    "minimumtls": "tls1.2",
                },
            },
        },
        indent=1,
    )


def log_file(settings: Settings) -> Path:
    return settings.state_dir / "registry.log"


async def serve(settings: Settings, host: str, certificate: KeyPair, stop: asyncio.Event) -> None:
    """Run the registry until `stop` is set; restart it when it exits."""
    config = settings.state_dir / "registry.json"
    write_private(config, configuration(settings, f"{host}:{settings.registry_port}", certificate))
    while not stop.is_set():
        if await _wait_until(stop, lambda: _is_local(host)):
            break
        await _run_once(settings, config, stop)


async def _run_once(settings: Settings, config: Path, stop: asyncio.Event) -> None:
    """Run the process once. It gets SIGKILL when the daemon ends for any reason."""
    with log_file(settings).open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", str(program(settings)), "serve", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            # By default it sends traces to a collector.
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )  # fmt: skip
    log.info("registry at %s (process %d)", address(settings), process.pid)
    exited = asyncio.create_task(process.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not exited.done():
        process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(exited), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await exited
        return
    log.warning("the registry exited (%s), see %s; restarting", process.returncode, log_file(settings))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), RESTART_SECONDS)


async def _wait_until(stop: asyncio.Event, condition: Callable[[], bool]) -> bool:
    """Wait for a condition; True when `stop` was set first."""
    while not condition():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.2)
        if stop.is_set():
            return True
    return False


def _is_local(host: str) -> bool:
    """Whether the address is on a link of this machine: the backend creates the uplink with its first operation."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def serves_image(settings: Settings, authority: Path, image: str, digest: str) -> bool:
    """Whether the registry serves an image."""
    request = urllib.request.Request(f"https://{address(settings)}/v2/{image}/manifests/{digest}", method="HEAD")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with direct.urlopen(request, timeout=5, context=context) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def wait_for_image(settings: Settings, authority: Path, image: str, digest: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not serves_image(settings, authority, image, digest):
        if time.monotonic() > deadline:
            raise MachineError(f"the registry at {address(settings)} does not serve {image}. See {log_file(settings)}.")
        time.sleep(0.1)
