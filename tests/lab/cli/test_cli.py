"""The command line against a stand-in for the daemon."""

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

from .conftest import Asked, describe

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
def test_a_fault_reaches_the_admin_api(asked: Asked, arguments: list[str], body: dict[str, Any]) -> None:
    result = lab("fault", *arguments)
    assert result.exit_code == 0, result.output
    assert asked == [("POST", "faults", body)]


def test_faults_are_listed_and_cleared(asked: Asked) -> None:
    result = lab("fault", "list")
    assert "out_of_stock" in result.output
    assert "location=fsn1" in result.output
    assert lab("fault", "clear", "3").exit_code == 0
    assert lab("fault", "clear").exit_code == 0
    assert asked[1:] == [("DELETE", "faults/3", None), ("DELETE", "faults", None)]


@pytest.mark.parametrize("arguments", [["loss", HOST, "101"], ["error", "200"], ["slow", "-1"], ["delay", HOST]])
def test_a_senseless_fault_is_refused_before_it_is_sent(asked: Asked, arguments: list[str]) -> None:
    assert lab("fault", *arguments).exit_code == 2
    assert asked == []


def test_status_shows_every_server_and_what_is_simulated(asked: Asked) -> None:
    output = lab("status").output
    for words in (HOST, "198.18.0.11", "10.90.1.21", "● running", "lab-lb-1", "● off", "lab-data-1"):
        assert words in output
    assert "RKE2 is a simulation." in output


def test_status_for_programs_is_json(asked: Asked) -> None:
    assert json.loads(lab("status", "--json").output)["servers"][0]["name"] == HOST


def test_console_is_printed_as_it_is(asked: Asked) -> None:
    assert lab("console", HOST).output == "[    0.0] hello\n"
    assert asked == [("GET", f"servers/{HOST}/console", None)]


def test_reset_asks_the_daemon(asked: Asked) -> None:
    assert lab("reset").exit_code == 0
    assert asked == [("POST", "reset", None)]


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
def test_ssh_goes_to_the_server(
    asked: Asked, executed: list[list[str]], arguments: list[str], target: str, command: list[str]
) -> None:
    lab("ssh", *arguments)
    (call,) = executed
    rest = call[call.index(target) + 1 :]
    assert rest == command


def test_ssh_to_an_unknown_server_names_the_known(asked: Asked) -> None:
    result = lab("ssh", "nobody")
    assert result.exit_code == 1
    assert "There is no server 'nobody' (there are: lab-lb-1, lab-rke2-server-1)" in result.output


def test_env_prints_what_clients_read(asked: Asked, settings: Settings) -> None:
    lines = lab("env").output.splitlines()
    assert f"export HCLOUD_ENDPOINT=http://127.0.0.1:{settings.api_port}/v1" in lines


@pytest.mark.parametrize("verb", [["status"], ["console", HOST], ["fault", "list"], ["reset"], ["env"], ["logs"]])
def test_without_a_lab_a_verb_is_one_sentence(settings: Settings, verb: list[str]) -> None:
    result = lab(*verb)
    assert result.exit_code == 1
    assert result.output.strip().count("\n") == 0 or "Traceback" not in result.output
    assert "lab up" in result.output


def test_a_dead_daemon_is_told_as_such(settings: Settings) -> None:
    describe(settings)
    assert "does not run; bring it back with: lab up" in lab("status").output


def test_a_bad_name_of_a_lab_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB", "Much Too Long")
    result = lab("status")
    assert result.exit_code == 1
    assert "set SLIPWAY_LAB to such a word" in result.output


def test_the_kind_of_host_images_is_one_of_two(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.images == "prepared"
    monkeypatch.setenv("SLIPWAY_LAB_IMAGES", "plain")
    assert Settings.from_environment().images == "plain"
    monkeypatch.setenv("SLIPWAY_LAB_IMAGES", "bare")
    assert "SLIPWAY_LAB_IMAGES is 'bare'; set prepared or plain" in lab("status").output


def test_a_daemon_with_other_host_images_is_replaced(settings: Settings) -> None:
    release, storage = SimpleNamespace(source="simulation", note="RKE2 is a simulation."), SimpleNamespace(digest="x")
    describe(settings, ceph={"image": "registry/ceph@x"})
    assert cli._current(settings, release, storage)
    assert not cli._current(dataclasses.replace(settings, images="plain"), release, storage)


def test_up_tells_all_shortages_and_changes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = preflight.Machine(user_id=1000, memory_gb=1.0)
    monkeypatch.setattr(preflight, "look", lambda *args, **kwargs: poor)
    result = lab("up")
    assert result.exit_code == 1
    assert "You are user 1000" in result.output
    assert "GB of memory" in result.output
    assert not settings.state_root.exists()


def test_names_of_servers_complete(asked: Asked) -> None:
    from lab.cli import _server_names

    assert _server_names("lab-r") == [HOST]


def test_a_failed_image_build_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
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
