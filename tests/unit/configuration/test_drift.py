"""What differs from the last verification of a unit is found, although no service stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import configuration, configuration_host
from ansible_collections.slipway.platform.plugins.module_utils.configuration import (
    VERIFIED,
    File,
    FileState,
    Folder,
    FolderState,
    Result,
    Unit,
)

from tests.unit.configuration.test_configuration import RUNNING, FakeHost, converge, state

RULES = "table inet filter { chain input { drop } }"
FIREWALL = Unit(
    "firewall",
    files=(File("/etc/rules.nft", "rules"), File("/etc/old.nft", None)),
    folders=(Folder("/etc/rules.d", exclusive=True),),
    service="fw.timer",
    live_command=("nft", "list"),
    live_contains="input",
    live_lines=(RULES,),
    live_exact=True,
)


def shown(active: str = "active", sub: str = "waiting", enabled: str = "enabled") -> Result:
    return Result(0, f"LoadState=loaded\nActiveState={active}\nSubState={sub}\nUnitFileState={enabled}\n")


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost(answers={"nft list": Result(0, RULES), "systemctl show": shown()})
    converge(FIREWALL, host)
    return host


def test_what_was_verified_has_no_drift(host: FakeHost) -> None:
    assert configuration.drift(host, ["firewall"]) == []
    assert not configuration.plan(FIREWALL, host, RUNNING).changed


def rewrite(host: FakeHost) -> None:
    host.files["/etc/rules.nft"] = state("other rules")


def open_mode(host: FakeHost) -> None:
    host.files["/etc/rules.nft"] = state("rules", 0o666)


def put_back(host: FakeHost) -> None:
    host.files["/etc/old.nft"] = state("old")


def link(host: FakeHost) -> None:
    host.files["/etc/rules.nft"] = FileState(b"", 0o777, "root", "root", "/tmp/rules.nft")


def open_folder(host: FakeHost) -> None:
    host.folders["/etc/rules.d"] = FolderState(0o777, "root", "root")


def add_file(host: FakeHost) -> None:
    host.files["/etc/rules.d/90-mine"] = state("mine")


def answer(command: str, result: Result) -> Callable[[FakeHost], None]:
    return lambda host: host.answers.update({command: result})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (rewrite, "/etc/rules.nft was changed"),
        (link, "/etc/rules.nft was changed"),
        (open_mode, "/etc/rules.nft belongs to root:root with mode 0666"),
        (lambda host: host.remove("/etc/rules.nft"), "/etc/rules.nft is missing"),
        (put_back, "/etc/old.nft exists again"),
        (open_folder, "/etc/rules.d belongs to root:root with mode 0777"),
        (lambda host: host.folders.clear(), "/etc/rules.d is missing"),
        (add_file, "/etc/rules.d/90-mine was added"),
        (answer("nft list", Result(1, "no such table")), "`nft list` shows another state than"),
        (answer("nft list", Result(0, f"{RULES}\naccept")), "`nft list` shows another state than"),
        (answer("systemctl show", shown("inactive", "dead")), "fw.timer does not run"),
        (answer("systemctl show", shown(sub="elapsed")), "fw.timer runs, but has no next time"),
        (answer("systemctl show", shown(enabled="disabled")), "fw.timer would not start with the host"),
        (answer("systemctl show", shown(enabled="masked")), "fw.timer would not start with the host"),
    ],
)
def test_drift_is_found(host: FakeHost, change: Callable[[FakeHost], object], sentence: str) -> None:
    change(host)
    found = configuration.drift(host, ["firewall"])
    assert len(found) == 1 and found[0].startswith(sentence)


def test_a_run_repairs_what_was_added_to_an_exact_output(host: FakeHost) -> None:
    host.answers["nft list"] = Result(0, f"{RULES}\naccept")
    planned = configuration.plan(FIREWALL, host, RUNNING)
    assert planned.reasons() == ["activate the files on disk"]
    host.answers["nft list"] = Result(0, RULES)
    configuration.apply(planned, host)
    assert "systemctl reload fw.timer" in host.commands
    assert configuration.drift(host, ["firewall"]) == []


def test_the_record_holds_no_content(host: FakeHost) -> None:
    assert '"rules"' not in host.verified["firewall"]


def test_the_newest_record_of_a_path_counts(host: FakeHost) -> None:
    converge(Unit("filter", files=(File("/etc/rules.nft", "rules of a later release"),)), host)
    assert configuration.drift(host, ["firewall", "filter"]) == []


def test_a_unit_without_a_record_has_no_drift(host: FakeHost) -> None:
    host.verified["firewall"] = '{"files": {"/etc'
    assert configuration.drift(host, ["firewall", "unknown"]) == []


def test_a_restart_leaves_the_record_of_the_files(host: FakeHost) -> None:
    record = host.verified["firewall"]
    configuration.record_verified(replace(FIREWALL, files=(), folders=(), restart=True), host)
    assert host.verified["firewall"] == record


def test_a_unit_that_does_not_apply_any_more_is_forgotten(host: FakeHost) -> None:
    configuration.forget_verified(FIREWALL, host)
    rewrite(host)
    assert configuration.drift(host, ["firewall"]) == []


def test_records_are_listed_from_the_oldest_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration_host, "STATE_FOLDER", tmp_path)
    monkeypatch.setattr(configuration_host, "STAGING_FOLDER", tmp_path)
    real = configuration_host.RealHost(SimpleNamespace(), "base")
    for number, unit in enumerate(("ssh", "accounts", "firewall")):
        real.write_record(unit, json.dumps({}), VERIFIED)
        record = tmp_path / f"base/{unit}.verified.json"
        assert record.stat().st_mode & 0o777 == 0o600
        os.utime(record, (number, number))
    real.write_record("time", "{}")
    assert real.list_records(VERIFIED) == ["ssh", "accounts", "firewall"]
    real.close()
