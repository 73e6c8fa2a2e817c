"""The daemon: exclusive, found by its lock, stopped cleanly, replaced after a kill."""

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


def test_without_a_pid_file_there_is_no_daemon(settings: Settings) -> None:
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_a_stale_pid_file_is_ignored(settings: Settings) -> None:
    """Its pid may belong to another process, here to this test."""
    settings.state_dir.mkdir(parents=True)
    daemon.pid_file(settings).write_text(str(os.getpid()))
    assert daemon.find(settings) is None
    assert daemon.stop(settings) is False


def test_a_daemon_is_found_by_its_lock_and_excludes_a_second(settings: Settings) -> None:
    settings.state_dir.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\nfrom lab import daemon\nfrom lab.settings import Settings\n"
            "with daemon.exclusive_lock(Settings.from_environment()):\n    print('held', flush=True)\n"
            "    time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert daemon.find(settings) == holder.pid
        with pytest.raises(daemon.DaemonError, match="already running"), daemon.exclusive_lock(settings):
            pass
        assert daemon.stop(settings) is True
        assert daemon.find(settings) is None
    finally:
        holder.kill()
        holder.wait()


def test_the_fingerprint_follows_the_code(settings: Settings) -> None:
    assert daemon.code_fingerprint() == daemon.code_fingerprint()


def test_a_failed_start_contains_the_cause(slot_settings: Settings) -> None:
    """There is no release in the mirror's folder."""
    started_at = time.monotonic()
    with pytest.raises(daemon.DaemonError, match=r"release mirror was never filled"):
        daemon.start(slot_settings, machines="stub")
    assert time.monotonic() - started_at < 30


@pytest.fixture
def started(slot_settings: Settings) -> Iterator[int]:
    """A daemon with stub machines."""
    folder = mirror.release_dir(slot_settings)
    folder.mkdir(parents=True)
    (folder / "release.json").write_text('{"source": "simulation", "note": "RKE2 is a simulation."}')
    yield daemon.start(slot_settings, machines="stub")
    daemon.stop(slot_settings)


def test_the_daemon_writes_its_description_and_serves_api_mirror_and_gitlab(
    slot_settings: Settings, started: int
) -> None:
    description = daemon.read_description(slot_settings)
    assert daemon.find(slot_settings) == started == description["pid"]
    assert slot_settings.description.stat().st_mode & 0o777 == 0o600
    assert Admin.of(slot_settings).status()["name"] == slot_settings.name
    context = ssl.create_default_context(cafile=description["ca_certificate_path"])
    url = f"https://127.0.0.1:{slot_settings.mirror_port}/rke2/releases/download/release.json"
    with urllib.request.urlopen(url, context=context) as response:
        assert json.load(response)["source"] == "simulation"
    gitlab = description["gitlab"]
    assert "simulation" in gitlab["version"] and "simulations" in gitlab["note"]
    headers = {"PRIVATE-TOKEN": gitlab["token"]}
    version = f"https://127.0.0.1:{slot_settings.gitlab_port}/api/v4/version"
    with urllib.request.urlopen(urllib.request.Request(version, headers=headers), context=context) as response:
        assert json.load(response)["version"] == gitlab["version"]
    servers = f"https://127.0.0.1:{slot_settings.hosts_api_port}/v1/servers"
    assert description["hosts_api_endpoint"].endswith(f":{slot_settings.hosts_api_port}/v1")
    token = {"Authorization": f"Bearer {description['token']}"}
    with urllib.request.urlopen(urllib.request.Request(servers, headers=token), context=context) as response:
        assert json.load(response)["servers"] == []
    packages = f"https://127.0.0.1:{slot_settings.mirror_port}/runner/gitlab-runner/debian/dists/trixie/InRelease"
    with urllib.request.urlopen(packages, context=context) as response:
        assert b"BEGIN PGP SIGNATURE" in response.read()


def test_a_server_exists_after_the_daemon_is_killed(slot_settings: Settings, started: int) -> None:
    def request(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        description = daemon.read_description(slot_settings)
        call = urllib.request.Request(
            description["api_endpoint"] + path,
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {description['token']}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(call, timeout=10) as response:
            return json.load(response)

    request("POST", "/servers", {"name": "kept", "server_type": "cx23", "image": "debian-13"})
    os.kill(started, signal.SIGKILL)
    os.waitpid(started, 0)
    assert daemon.find(slot_settings) is None
    assert daemon.start(slot_settings, machines="stub") != started
    assert [server["name"] for server in request("GET", "/servers")["servers"]] == ["kept"]


def test_stop_is_clean_and_keeps_the_log(slot_settings: Settings, started: int) -> None:
    assert daemon.stop(slot_settings) is True
    assert "stopped; hosts keep running" in daemon.log_file(slot_settings).read_text()
    assert daemon.crash_file(slot_settings).read_text() == ""


def test_a_port_in_use_is_one_message(slot_settings: Settings) -> None:
    folder = mirror.release_dir(slot_settings)
    folder.mkdir(parents=True)
    (folder / "release.json").write_text('{"source": "simulation", "note": "none"}')
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", slot_settings.api_port))
        other.listen()
        with pytest.raises(daemon.DaemonError, match=rf"Port {slot_settings.api_port} of 127.0.0.1: not available"):
            daemon.start(slot_settings, machines="stub")
