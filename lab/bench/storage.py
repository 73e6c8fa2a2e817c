"""Throughput of the storage as a share of the raw device's, measured in the same run."""

from __future__ import annotations

import mmap
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from lab import daemon, summary
from lab.admin import Admin
from lab.bench.goals import Figure
from lab.settings import Settings

PROGRAMS = Path(sys.executable).parent
COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
"""Folder of the platform's S3 client."""
BLOCK_BYTES = 4 * 1024**2
RAW_BYTES = 512 * 1024**2
OBJECTS = 64
WRITERS = 8
RADOS_SECONDS = 10
RADOS_HOST = "lab-ceph-1"
RADOS_POOL = "kubernetes"
TRIES = 3


def phases(report: summary.Fields | None) -> Iterator[Figure]:
    """Time of each play of the run that built the site."""
    for phase in (report or {}).get("phases", ()):
        yield Figure(f"site.yml, {phase['name']}", float(phase["seconds"]), "s")


def ratios(settings: Settings, inventory: Path) -> Iterator[Figure]:
    raw = statistics.median(_raw(settings) for _ in range(TRIES))
    yield Figure("raw loop device, direct writes of 4 MB", raw, "MB/s", note=f"median of {TRIES}")
    rados = _rados()
    yield Figure("RADOS, writes of 4 MB to three copies", rados, "MB/s")
    yield Figure("RADOS as a share of the device", 100 * rados / raw, "%", note="all copies are on one real disk")
    put, get = _s3(settings, inventory)
    yield Figure("S3 over TLS, put of 4 MB to one copy", put, "MB/s")
    yield Figure("S3 put as a share of the device", 100 * put / raw, "%")
    yield Figure("S3 over TLS, get of 4 MB", get, "MB/s")


def _rate(count: int, action: Callable[[], Any]) -> float:
    """MB/s of an action that transfers `count` bytes."""
    started = time.monotonic()
    action()
    return count / 1e6 / (time.monotonic() - started)


def _raw(settings: Settings) -> float:
    """Direct writes to a loop device on the disk that holds the volumes."""
    path = settings.state_dir / "bench.img"
    with path.open("wb") as file:
        file.truncate(RAW_BYTES)
    device = ""
    try:
        command = ["losetup", "--find", "--show", str(path)]
        device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        # O_DIRECT needs aligned memory; random data cannot be compressed.
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            block.write(os.urandom(BLOCK_BYTES))

            def write() -> None:
                descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
                try:
                    for number in range(RAW_BYTES // BLOCK_BYTES):
                        os.pwrite(descriptor, block, number * BLOCK_BYTES)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

            return _rate(RAW_BYTES, write)
    finally:
        if device:
            subprocess.run(["losetup", "--detach", device], check=True)
        path.unlink()


def _rados() -> float:
    """Result of `rados bench`."""
    command = (
        "sudo python3 /usr/local/sbin/cephadm shell -- "
        f"rados --pool={RADOS_POOL} bench {RADOS_SECONDS} write -b {BLOCK_BYTES} -t {WRITERS}"
    )
    done = subprocess.run(
        [PROGRAMS / "lab", "ssh", RADOS_HOST, "--", command], capture_output=True, text=True, check=False
    )
    found = re.search(r"^Bandwidth \(MB/sec\):\s+([\d.]+)", done.stdout, re.M)
    if found is None:
        raise SystemExit(f"bench: rados bench failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return float(found[1]) * 1.048576  # rados reports MiB


def _s3(settings: Settings, inventory: Path) -> tuple[float, float]:
    """MB/s of puts and gets by several concurrent clients; the bucket is removed with the lab."""
    sys.path.append(str(COLLECTIONS))
    from ansible_collections.slipway.platform.plugins.module_utils.s3 import Key, Store

    description = daemon.read_description(settings)
    secrets = yaml.safe_load(Path(description["secrets_path"]).read_text(encoding="utf-8"))
    platform_settings = yaml.safe_load((inventory / "group_vars/all/platform.yml").read_text(encoding="utf-8"))
    where = summary.store(Admin.of(settings).status())
    if where is None:
        raise SystemExit("bench: this lab has no host object_storage. Run the benchmark with the platform (--site).")
    store = Store(
        f"https://s3.{platform_settings['platform_domain']}",
        Key(secrets["object_storage_owner_access_key"], secrets["object_storage_owner_secret_key"]),
        region=platform_settings["platform_object_storage_region"],
        ca_certificate=secrets["platform_ca_certificate"],
        addresses=[where],
        timeout_seconds=60,
    )
    store.request("PUT", "/bench")
    body = os.urandom(BLOCK_BYTES)
    paths = [f"/bench/{number}" for number in range(OBJECTS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        put = _rate(
            OBJECTS * BLOCK_BYTES, lambda: list(pool.map(lambda path: store.request("PUT", path, body=body), paths))
        )
        get = _rate(OBJECTS * BLOCK_BYTES, lambda: list(pool.map(lambda path: store.request("GET", path), paths)))
    return put, get
