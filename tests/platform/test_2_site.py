"""The contract of every run: a second one changes nothing, and check mode tells the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.platform.conftest import ARTIFACTS, Run, play, reports


@pytest.fixture(scope="module")
def second() -> Run:
    """The run after the one that built the site, telling all it can."""
    return play("-vvv")


def test_a_second_run_changes_nothing(second: Run) -> None:
    assert second.code == 0, second.output[-6000:]
    assert second.changed == {}, second.output[-6000:]


def test_check_mode_of_a_built_platform_reports_no_change() -> None:
    run = play("--check", "--diff")
    assert run.code == 0, run.output[-6000:]
    assert run.changed == {}, run.output[-6000:]


def test_check_mode_announces_a_change_and_does_not_make_it() -> None:
    """One value changed: exactly the hosts that carry it are named, and the next run finds nothing done."""
    run = play("--check", "--diff", "-e", "base_journal_max_mb=123", playbook="playbooks/base.yml")
    assert run.code == 0, run.output[-6000:]
    assert run.changed != {}, run.output[-6000:]
    assert "SystemMaxUse=123M" in run.output
    assert play(playbook="playbooks/base.yml").changed == {}


def test_the_report_says_how_long_and_how_much() -> None:
    newest = max(reports())
    report = json.loads(newest.read_text())
    assert report["phases"]
    assert all(phase["seconds"] >= 0 for phase in report["phases"])


def texts(value: Any) -> list[str]:
    """Every text in it, wherever it is: some secrets are one for each account."""
    return [text for one in value.values() for text in texts(one)] if isinstance(value, dict) else [value.strip()]


def test_no_secret_reaches_output_or_artifacts(second: Run, description: dict[str, str]) -> None:
    values = texts(yaml.safe_load(Path(description["secrets_path"]).read_text()))
    secrets = [value for value in values if "CERTIFICATE" not in value] + [description["token"]]
    assert len(secrets) >= 12 and all(len(secret) > 12 for secret in secrets)
    leaked = [secret[:4] + "…" for secret in secrets if secret in second.output]
    leaked += [
        f"{path}: {secret[:4]}…"
        for path in ARTIFACTS.rglob("*")
        if path.is_file() and path.name != "kubeconfig"
        for secret in secrets
        if secret in path.read_text(errors="replace")
    ]
    assert leaked == []
