"""The daemon's life: one at a time, found by its lock, stopped cleanly, replaced after it died."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from lab import daemon, mirror
from lab.admin import Admin
from lab.settings import Settings


def test_no_pid_file_no_daemon(settings: Settings) -> None:
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_a_stale_pid_file_fools_nobody(settings: Settings) -> None:
    """The pid in it may belong to another program by now: here, to this test."""
    settings.state_dir.mkdir(parents=True)
    daemon.pid_file(settings).write_text(str(os.getpid()))
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_the_holder_of_the_lock_is_found_and_no_second_one_starts(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\nfrom lab import daemon\nfrom lab.settings import Settings\n"
            "with daemon.only_one(Settings.from_environment()):\n    print('held', flush=True)\n    time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert daemon.find(settings) == holder.pid
        with pytest.raises(daemon.DaemonError, match="runs already"), daemon.only_one(settings):
            pass
        assert daemon.stop(settings) is True
        assert daemon.find(settings) is None
    finally:
        holder.kill()
        holder.wait()


def test_the_fingerprint_follows_the_code(settings: Settings) -> None:
    assert daemon.code_fingerprint() == daemon.code_fingerprint()


def test_a_daemon_that_cannot_start_says_why(slotted: Settings) -> None:
    """There is no release in the mirror's folder yet."""
    began = time.monotonic()
    with pytest.raises(daemon.DaemonError, match=r"release mirror was never filled"):
        daemon.start(slotted, machines="stub")
    assert time.monotonic() - began < 30


@pytest.fixture
def started(slotted: Settings) -> Iterator[int]:
    """A whole daemon with machines that exist only as a record."""
    folder = mirror.release_dir(slotted)
    folder.mkdir(parents=True)
    (folder / "release.json").write_text('{"source": "simulation", "note": "RKE2 is a simulation."}')
    yield daemon.start(slotted, machines="stub")
    daemon.stop(slotted)


def test_it_describes_itself_and_serves_both(slotted: Settings, started: int) -> None:
    description = daemon.read_description(slotted)
    assert daemon.find(slotted) == started == description["pid"]
    assert slotted.description.stat().st_mode & 0o777 == 0o600
    assert Admin.of(slotted).status()["name"] == slotted.name
    context = ssl.create_default_context(cafile=description["ca_certificate_path"])
    url = f"https://127.0.0.1:{slotted.mirror_port}/rke2/releases/download/release.json"
    with urllib.request.urlopen(url, context=context) as answer:
        assert json.load(answer)["source"] == "simulation"


def test_a_server_made_before_a_kill_is_there_after_it(slotted: Settings, started: int) -> None:
    def request(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        description = daemon.read_description(slotted)
        call = urllib.request.Request(
            description["api_endpoint"] + path,
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {description['token']}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(call, timeout=10) as answer:
            return json.load(answer)

    request("POST", "/servers", {"name": "kept", "server_type": "cx23", "image": "debian-13"})
    os.kill(started, signal.SIGKILL)
    os.waitpid(started, 0)
    assert daemon.find(slotted) is None
    assert daemon.start(slotted, machines="stub") != started
    assert [server["name"] for server in request("GET", "/servers")["servers"]] == ["kept"]


def test_it_stops_cleanly_and_keeps_its_log(slotted: Settings, started: int) -> None:
    assert daemon.stop(slotted) is True
    assert "stopped; hosts go on running" in daemon.log_file(slotted).read_text()
    assert daemon.crash_file(slotted).read_text() == ""


def test_a_port_that_is_taken_is_one_sentence(slotted: Settings) -> None:
    folder = mirror.release_dir(slotted)
    folder.mkdir(parents=True)
    (folder / "release.json").write_text('{"source": "simulation", "note": "none"}')
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", slotted.api_port))
        other.listen()
        with pytest.raises(daemon.DaemonError, match=rf"Port {slotted.api_port} of 127.0.0.1 cannot be had"):
            daemon.start(slotted, machines="stub")
