"""Real `lab up` and `lab down`: hosts are reachable, outlive the daemon, and are removed completely."""

from __future__ import annotations

import hashlib
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hcloud import Client
from hcloud.images import Image
from hcloud.server_types import ServerType

from lab import ceph, daemon, registry
from lab.settings import CACHE_ROOT, Settings

pytestmark = pytest.mark.real

NAME = "clitst"
STARTED = "cut -d' ' -f22 /proc/1/stat"
"""Prints the start time of the host's init."""


def lab(*arguments: str) -> str:
    program = Path(sys.executable).with_name("lab")
    done = subprocess.run(
        [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_when_booted(*arguments: str) -> str:
    """Repeat a command until the host has booted; its output."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return lab(*arguments)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def traces() -> set[str]:
    """Everything on this machine whose name contains the lab's name."""
    commands = (
        ["ip", "netns", "list"],
        ["ip", "-o", "link"],
        ["ip", "route"],
        ["nft", "list", "tables"],
        ["podman", "ps", "--all", "--format", "{{.Names}}"],
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"],
        ["findmnt", "--noheadings", "--raw", "--output", "TARGET"],
    )
    lines = [
        line
        for command in commands
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    return {line for line in lines if NAME in line}


def fetched(url: str, authority: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30, context=ssl.create_default_context(cafile=authority)) as response:
        content: bytes = response.read()
        return content


def serves_ceph(settings: Settings, description: dict[str, Any]) -> bool:
    """Whether the registry has the images and the mirror has the cephadm that lab.json describes."""
    release, authority = description["ceph"], description["ca_certificate_path"]
    images = [release[name].partition("@")[2] for name in ("image", "upgrade_image")]
    digest = hashlib.sha256(fetched(release["cephadm_url"], authority)).hexdigest()
    return release["cephadm_checksum"] == f"sha256:{digest}" and all(
        registry.serves_image(settings, Path(authority), ceph.IMAGE, image) for image in images
    )


@pytest.fixture
def real(slot_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A lab with the images in this machine's cache."""
    monkeypatch.setenv("SLIPWAY_LAB", NAME)
    monkeypatch.setenv("SLIPWAY_CACHE_ROOT", str(CACHE_ROOT))
    yield Settings.from_environment()
    lab("down")


def test_hosts_are_reachable_outlive_the_daemon_and_are_removed(real: Settings) -> None:
    assert traces() == set()
    assert "The local cloud is running" in lab("up", "--only-cloud")

    description = daemon.read_description(real)
    assert serves_ceph(real, description)
    cloud = Client(token=description["token"], api_endpoint=description["api_endpoint"], poll_interval=0.2)
    key = cloud.ssh_keys.create("key", description["ssh_public_key"])
    created = cloud.servers.create("kept", ServerType("cx23"), Image(name="debian-13"), ssh_keys=[key])
    created.action.wait_until_finished()
    cloud.volumes.create(10, "data", server=created.server).action.wait_until_finished()
    assert run_when_booted("ssh", "kept", "--", "hostname") == "kept\n"
    boot = lab("ssh", "kept", "--", STARTED)
    assert traces() != set()

    pid = daemon.find(real)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert "✓ Local cloud" in lab("up", "--only-cloud")
    assert lab("ssh", "kept", "--", STARTED) == boot
    assert serves_ceph(real, description)
    assert cloud.servers.get_by_name("kept").status == "running"
    assert "Replacing" not in lab("up", "--only-cloud")

    session = subprocess.Popen([Path(sys.executable).with_name("lab"), "ssh", "kept", "--", "sleep 600"])
    subprocess.run(["sleep", "2"], check=True)
    assert session.poll() is None
    assert "removed" in lab("down")
    assert session.wait(10) != 0
    assert traces() == set()
    assert not real.state_dir.exists()
    assert str(real.state_dir) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "does not exist" in lab("down")
