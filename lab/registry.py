"""The lab's image registry: Debian's docker-registry, run by the daemon, over HTTPS with the lab's CA.

The program comes out of Debian's package and lies in the cache; nothing is installed on the machine. All labs of a
machine read one storage, which only `lab.oci` writes: towards hosts the registry is read-only.
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
    """How hosts name the registry."""
    return f"{settings.machine_address}:{settings.registry_port}"


def storage(settings: Settings) -> Storage:
    return Storage(settings.cache_dir / "registry")


def program(settings: Settings) -> Path:
    return settings.cache_dir / PACKAGE / PROGRAM


def ensure_program(settings: Settings) -> Path:
    """Fetch the package of this machine's Debian by apt, which checks its signature, and unpack it into the cache."""
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
                # The machine's lists name a version that its mirror has no more.
                _apt("update", work)
                if not _download(work):
                    raise MachineError(f"apt cannot fetch {PACKAGE} on this machine; try: apt-get download {PACKAGE}")
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
    """The registry's own configuration: JSON, which its YAML reader takes."""
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


async def serve(settings: Settings, host: str, certificate: KeyPair, ended: asyncio.Event) -> None:
    """Keep the registry running until `ended`."""
    config = settings.state_dir / "registry.json"
    write_private(config, configuration(settings, f"{host}:{settings.registry_port}", certificate))
    while not ended.is_set():
        if await _until(ended, lambda: _is_local(host)):
            break
        await _run_once(settings, config, ended)


async def _run_once(settings: Settings, config: Path, ended: asyncio.Event) -> None:
    """One life of the process. It dies with the daemon, however that ends."""
    with log_file(settings).open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", str(program(settings)), "serve", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            # Its own metrics and traces would look for a collector.
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )  # fmt: skip
    log.info("registry at %s (process %d)", address(settings), process.pid)
    gone = asyncio.create_task(process.wait())
    stop = asyncio.create_task(ended.wait())
    await asyncio.wait({gone, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not gone.done():
        process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(gone), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await gone
        return
    log.warning("the registry ended (%s), see %s; starting it again", process.returncode, log_file(settings))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), RESTART_SECONDS)


async def _until(ended: asyncio.Event, true: Callable[[], bool]) -> bool:
    """Wait for a condition; says whether the end came first."""
    while not true():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.2)
        if ended.is_set():
            return True
    return False


def _is_local(host: str) -> bool:
    """Whether the address is on a link of this machine: the uplink is made by the backend's first work."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def answers(settings: Settings, authority: Path, image: str, digest: str) -> bool:
    """Whether the registry serves an image."""
    request = urllib.request.Request(f"https://{address(settings)}/v2/{image}/manifests/{digest}", method="HEAD")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def wait(settings: Settings, authority: Path, image: str, digest: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not answers(settings, authority, image, digest):
        if time.monotonic() > deadline:
            raise MachineError(
                f"the registry at {address(settings)} does not serve {image}; its log is {log_file(settings)}"
            )
        time.sleep(0.1)
