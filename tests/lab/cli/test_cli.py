"""The command line against a test double of the daemon."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lab import ceph, cli, mirror, preflight
from lab.cli import app
from lab.machines import builds, images
from lab.machines.base import MachineError
from lab.settings import Settings

from .conftest import Requests, describe

HOST = "lab-rke2-server-1"


def lab(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


FAULTS: list[tuple[list[str], dict[str, Any]]] = [
    (["out-of-stock"], {"kind": "out_of_stock"}),
    (
        ["out-of-stock", "--type", "cx23", "--location", "fsn1", "--count", "2"],
        {"kind": "out_of_stock", "server_type": "cx23", "location": "fsn1", "count": 2},
    ),
    (["out-of-stock", "--announced"], {"kind": "out_of_stock", "announced": True}),
    (["rate-limit", "-n", "3"], {"kind": "rate_limit", "count": 3}),
    (["locked"], {"kind": "locked"}),
    (["action-error", "create_server"], {"kind": "action_error", "command": "create_server"}),
    (["slow", "1.5"], {"kind": "slow", "seconds": 1.5}),
    (["error", "502", "-n", "1"], {"kind": "error", "status": 502, "count": 1}),
    (["error"], {"kind": "error", "status": 503}),
    (["power-cut", HOST], {"kind": "power_cut", "server": HOST}),
    (["power-cut", HOST, "--seconds", "5"], {"kind": "power_cut", "server": HOST, "seconds": 5.0}),
    (["cut", HOST], {"kind": "network_cut", "server": HOST, "link": "public"}),
    (["cut", HOST, "--link", "lab"], {"kind": "network_cut", "server": HOST, "link": "lab"}),
    (["heal", HOST], {"kind": "network_heal", "server": HOST, "link": "all"}),
    (["delay", HOST, "40"], {"kind": "delay", "server": HOST, "link": "public", "milliseconds": 40}),
    (["full-disk", HOST], {"kind": "disk_full", "server": HOST, "free_mb": 0}),
    (["full-disk", HOST, "--free", "50"], {"kind": "disk_full", "server": HOST, "free_mb": 50}),
    (["full-disk", HOST, "--over"], {"kind": "disk_room", "server": HOST}),
    (["loss", HOST, "30", "--link", "lab"], {"kind": "loss", "server": HOST, "link": "lab", "percent": 30}),
]


@pytest.mark.parametrize(("arguments", "body"), FAULTS, ids=[" ".join(arguments) for arguments, _ in FAULTS])
def test_a_fault_reaches_the_admin_api(requests: Requests, arguments: list[str], body: dict[str, Any]) -> None:
    result = lab("fault", *arguments)
    assert result.exit_code == 0, result.output
    assert requests == [("POST", "faults", body)]


def test_faults_are_listed_and_cleared(requests: Requests) -> None:
    result = lab("fault", "list")
    assert "out_of_stock" in result.output
    assert "location=fsn1" in result.output
    assert lab("fault", "clear", "3").exit_code == 0
    assert lab("fault", "clear").exit_code == 0
    assert requests[1:] == [("DELETE", "faults/3", None), ("DELETE", "faults", None)]


@pytest.mark.parametrize("arguments", [["loss", HOST, "101"], ["error", "200"], ["slow", "-1"], ["delay", HOST]])
def test_an_invalid_fault_is_rejected_before_it_is_sent(requests: Requests, arguments: list[str]) -> None:
    assert lab("fault", *arguments).exit_code == 2
    assert requests == []


def test_status_shows_every_server_and_what_is_simulated(requests: Requests) -> None:
    output = lab("status").output
    for words in (HOST, "198.18.0.11", "10.90.1.21", "● running", "lab-lb-1", "● off", "lab-data-1"):
        assert words in output
    assert "RKE2 is a simulation." in output


def test_status_as_json(requests: Requests) -> None:
    assert json.loads(lab("status", "--json").output)["servers"][0]["name"] == HOST


def test_console_is_printed_unchanged(requests: Requests) -> None:
    assert lab("console", HOST).output == "[    0.0] hello\n"
    assert requests == [("GET", f"servers/{HOST}/console", None)]


def test_reset_calls_the_admin_api(requests: Requests) -> None:
    assert lab("reset").exit_code == 0
    assert requests == [("POST", "reset", None)]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda file, arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("arguments", "target", "command"),
    [
        ([HOST], "slipway@198.18.0.11", []),
        (["lab-lb-1"], "root@198.18.0.10", []),
        (["-l", "root", HOST], "root@198.18.0.11", []),
        ([HOST, "--", "uptime"], "slipway@198.18.0.11", ["--", "uptime"]),
        ([HOST, "--", "ls", "-l", "a b"], "slipway@198.18.0.11", ["--", "ls -l 'a b'"]),
        ([HOST, "--", "uptime; id"], "slipway@198.18.0.11", ["--", "uptime; id"]),
    ],
)
def test_ssh_connects_to_the_server(
    requests: Requests, executed: list[list[str]], arguments: list[str], target: str, command: list[str]
) -> None:
    lab("ssh", *arguments)
    (call,) = executed
    rest = call[call.index(target) + 1 :]
    assert rest == command


def test_ssh_to_an_unknown_server_lists_the_servers(requests: Requests) -> None:
    result = lab("ssh", "nobody")
    assert result.exit_code == 1
    assert "Server 'nobody': does not exist. Use one of: lab-lb-1, lab-rke2-server-1" in result.output


def test_env_prints_the_variables_of_clients(requests: Requests, settings: Settings) -> None:
    lines = lab("env").output.splitlines()
    assert f"export HCLOUD_ENDPOINT=http://127.0.0.1:{settings.api_port}/v1" in lines


@pytest.mark.parametrize("verb", [["status"], ["console", HOST], ["fault", "list"], ["reset"], ["env"], ["logs"]])
def test_a_command_without_a_lab_is_one_message(settings: Settings, verb: list[str]) -> None:
    result = lab(*verb)
    assert result.exit_code == 1
    assert result.output.strip().count("\n") == 0 or "Traceback" not in result.output
    assert "lab up" in result.output


def test_a_stopped_daemon_is_one_message(settings: Settings) -> None:
    describe(settings)
    assert "the daemon is not running. Start it with: lab up" in lab("status").output


def test_an_invalid_lab_name_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB", "Much Too Long")
    result = lab("status")
    assert result.exit_code == 1
    assert "Set 1 to 6 lower-case letters and digits" in result.output


def test_host_images_are_prepared_or_plain(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.images == "prepared"
    monkeypatch.setenv("SLIPWAY_LAB_IMAGES", "plain")
    assert Settings.from_environment().images == "plain"
    monkeypatch.setenv("SLIPWAY_LAB_IMAGES", "bare")
    assert "SLIPWAY_LAB_IMAGES: 'bare' is unknown. Set prepared or plain" in lab("status").output


def test_a_daemon_with_other_host_images_is_replaced(settings: Settings) -> None:
    release, storage = SimpleNamespace(source="simulation", note="RKE2 is a simulation."), SimpleNamespace(digest="x")
    charts = SimpleNamespace(note="Charts of the lab.")
    describe(settings, ceph={"image": "registry/ceph@x"}, charts={"note": charts.note})
    assert cli._is_current(settings, release, storage, charts)
    assert not cli._is_current(settings, release, storage, SimpleNamespace(note="Official charts."))
    assert not cli._is_current(dataclasses.replace(settings, images="plain"), release, storage, charts)


def test_up_prints_all_preflight_faults_and_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = preflight.Machine(user_id=1000, memory_gb=1.0)
    monkeypatch.setattr(preflight, "inspect_machine", lambda *args, **kwargs: small)
    result = lab("up")
    assert result.exit_code == 1
    assert "User 1000" in result.output
    assert "Memory: 1.0 GB" in result.output
    assert not settings.state_root.exists()


def test_server_names_are_completed(requests: Requests) -> None:
    from lab.cli import _server_names

    assert _server_names("lab-r") == [HOST]


def test_a_failed_image_build_is_one_message(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Path:
        raise MachineError("building image debian-13 failed, see /x.log: E: no such package")

    def wait_for_the_failure(*arguments: Any) -> None:
        while True:
            builds.check_cancelled()
            time.sleep(0.01)

    monkeypatch.setattr(preflight, "faults", lambda *arguments, **options: [])
    monkeypatch.setattr(images, "ensure", fail)
    monkeypatch.setattr(ceph, "prepare", wait_for_the_failure)
    monkeypatch.setattr(mirror, "prepare", wait_for_the_failure)
    result = lab("up")
    assert result.exit_code == 1
    assert result.stderr.strip() == "lab: building image debian-13 failed, see /x.log: E: no such package"
    assert {"… Host image debian-13", "… Ceph image and cephadm"} < set(result.stdout.splitlines())
    assert "✓" not in result.stdout
