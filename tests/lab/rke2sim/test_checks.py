"""The simulation's checks of the host before its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.rke2sim.runtime.checks import host_checks
from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.log import Fatal


def check(policy: Path, registries: Path) -> None:
    host_checks(Config("server", {"audit-policy-file": str(policy), "private-registry": str(registries)}))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "audit-policy.yaml"
    path.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n")
    return path


@pytest.fixture
def registries(tmp_path: Path) -> Path:
    path = tmp_path / "registries.yaml"
    path.write_text("mirrors: {docker.io: {endpoint: [https://mirror.test]}}\n")
    return path


def test_valid_files_pass(policy: Path, registries: Path) -> None:
    check(policy, registries)


def test_a_missing_audit_policy_is_fatal(policy: Path, registries: Path) -> None:
    policy.unlink()
    with pytest.raises(Fatal, match="no such file"):
        check(policy, registries)


@pytest.mark.parametrize("text", ["rules: []\n", "{}", "", "- a\n"])
def test_an_audit_policy_without_rules_is_fatal(policy: Path, registries: Path, text: str) -> None:
    policy.write_text(text)
    with pytest.raises(Fatal, match="illegal policy with 0 rules"):
        check(policy, registries)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mirrors: [", "failed to parse"),
        ("mirror: {}", "has other keys than"),
        ("mirrors: {a: {url: b}}", "other keys than endpoint and rewrite"),
    ],
)
def test_a_malformed_registries_file_is_fatal(policy: Path, registries: Path, text: str, sentence: str) -> None:
    registries.write_text(text)
    with pytest.raises(Fatal, match=sentence):
        check(policy, registries)
