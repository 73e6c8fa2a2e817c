"""Contract of every run: a second run changes nothing, and check mode reports what a run would change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import ARTIFACTS, OUTPUTS, Run, declare, declared, play


@pytest.fixture(scope="module")
def second() -> Run:
    """The run after the one that built the site, with -vvv."""
    return play("-vvv")


def test_a_second_run_changes_nothing(second: Run) -> None:
    assert second.code == 0, second.excerpt
    assert second.changed == {}, second.excerpt


def test_check_mode_of_a_built_platform_reports_no_change(description: dict[str, Any]) -> None:
    """From a new checkout, which has no kubeconfig."""
    kubeconfig = Path(description["secrets_path"]).parent / "ansible/kubeconfig"
    kubeconfig.unlink()
    run = play("--check", "--diff")
    assert run.code == 0, run.excerpt
    assert run.changed == {}, run.excerpt
    assert kubeconfig.exists()


def test_a_new_environment_has_every_snapshot_that_is_due() -> None:
    """Before the schedule of RKE2 takes its first one."""
    run = play(playbook="playbooks/operations/list_snapshots.yml")
    assert run.code == 0, run.excerpt
    assert set(run.changed) == {"localhost"}, "only the report is written"


NEW_HOSTS: dict[str, dict[str, dict[str, Any]]] = {
    "ceph": {"lab-ceph-4": {"provision_private_ip": "10.90.1.54"}},
    "postgresql": {"lab-postgresql-2": {"provision_private_ip": "10.90.1.72", "postgresql_standby": True}},
    "rke2_agent": {"lab-rke2-agent-2": {"provision_private_ip": "10.90.1.42"}},
}


def test_check_mode_reports_changes_without_making_them(cloud: Client, tmp_path: Path) -> None:
    """New hosts and one changed value: all changes are reported, and no task fails because a host does not exist yet.

    molecule/base/tests, which test_4_roles.py runs next on these hosts, verifies that the value was not written.
    """
    folder = tmp_path / "lab"
    folder.mkdir()
    inventory = declared()
    for group, hosts in NEW_HOSTS.items():
        inventory["all"]["children"][group]["hosts"] |= hosts
    declare(folder, inventory)
    run = play("-i", str(folder), "--check", "--diff", "-e", "base_journal_max_mb=123")
    assert run.code == 0, run.excerpt
    assert run.changed != {}, run.excerpt
    assert "SystemMaxUse=123M" in run.output
    for name in (name for hosts in NEW_HOSTS.values() for name in hosts):
        assert name in run.output and cloud.servers.get_by_name(name) is None


def test_the_report_has_times_and_changes(second: Run) -> None:
    report = second.report
    assert report["result"] == "ok"
    spent = sum(phase["seconds"] for phase in report["phases"])
    assert 0 < spent <= report["seconds"] + 0.1 * len(report["phases"])  # each is rounded
    assert sum(phase["changed"] for phase in report["phases"]) == sum(second.changed.values())


WRONG = {
    "ceph": "settle_timeout_seconds",
    "gitlab_runner": "concurrent",
    "load_balancer": "certificate_valid_days",
    "postgresql": "volume_gb",
    "rke2": "network_mtu",
    "s3_snapshot": "keep",
}
"""Role → one of its numbers. Its argument spec, which gets every secret, rejects a word before the first task."""


@pytest.fixture(scope="module", params=WRONG)
def failed(request: pytest.FixtureRequest) -> Run:
    """A run with -vvv that fails where secrets are variables, and changes nothing."""
    role = request.param
    return play("-vvv", "-e", json.dumps({f"{role}_{WRONG[role]}": "many"}), playbook=f"playbooks/{role}.yml")


def texts(value: Any) -> list[str]:
    """Every string of a nested value: some secrets are a dictionary by account."""
    return [text for one in value.values() for text in texts(one)] if isinstance(value, dict) else [value.strip()]


def secrets_of(description: dict[str, str]) -> set[str]:
    """Every secret, and each line of a key: output indents and escapes values of several lines."""
    secrets = {description["token"]}
    for value in texts(yaml.safe_load(Path(description["secrets_path"]).read_text())):
        lines = value.splitlines()
        if "CERTIFICATE" not in value:
            secrets |= {line for line in lines if len(lines) == 1 or (len(line) > 12 and not line.startswith("-----"))}
    return secrets


def leaks(description: dict[str, str]) -> list[str]:
    """Files of output and artifacts with a secret in them."""
    secrets = secrets_of(description)
    assert len(secrets) >= 12 and all(len(secret) > 12 for secret in secrets)
    return [
        f"{path}: {secret[:4]}…"
        for path in ARTIFACTS.rglob("*")
        if path.is_file() and path.name != "kubeconfig"
        for text in [path.read_text(errors="replace")]
        for secret in secrets
        if secret in text
    ]


def test_a_failing_run_prints_no_secret(failed: Run, description: dict[str, str]) -> None:
    assert failed.code != 0
    assert "'many'" in failed.output and failed.report["failed_tasks"], failed.excerpt
    assert leaks(description) == []


def test_no_secret_reaches_output_or_artifacts(second: Run, description: dict[str, str]) -> None:
    """Output of the killed build, of the run with --diff that completed it, and of a run with -vvv."""
    outputs = {path.name: path.read_text() for path in OUTPUTS.glob("*.log")}
    assert "killed.log" in outputs and second.output in outputs.values()
    assert any("+++ after" in output and "changed: [" in output for output in outputs.values())
    assert leaks(description) == []
