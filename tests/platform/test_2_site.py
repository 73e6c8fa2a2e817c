"""The contract of every run: a second one changes nothing, and check mode tells the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import ARTIFACTS, Run, declare, declared, play, reports


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


NEW_HOSTS: dict[str, dict[str, dict[str, Any]]] = {
    "ceph": {"lab-ceph-4": {"provision_private_ip": "10.90.1.54"}},
    "postgresql": {"lab-postgresql-2": {"provision_private_ip": "10.90.1.72", "postgresql_standby": True}},
    "rke2_agent": {"lab-rke2-agent-2": {"provision_private_ip": "10.90.1.42"}},
}


def test_check_mode_announces_changes_and_does_not_make_them(cloud: Client, tmp_path: Path) -> None:
    """New hosts and one changed value: all is reported to the end, and no task fails for a host that is yet to come.

    That the value was not written is proved by molecule/base/tests, which test_4_roles.py runs next on these hosts.
    """
    folder = tmp_path / "lab"
    folder.mkdir()
    inventory = declared()
    for group, hosts in NEW_HOSTS.items():
        inventory["all"]["children"][group]["hosts"] |= hosts
    declare(folder, inventory)
    run = play("-i", str(folder), "--check", "--diff", "-e", "base_journal_max_mb=123")
    assert run.code == 0, run.output[-6000:]
    assert run.changed != {}, run.output[-6000:]
    assert "SystemMaxUse=123M" in run.output
    for name in (name for hosts in NEW_HOSTS.values() for name in hosts):
        assert name in run.output and cloud.servers.get_by_name(name) is None


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
