"""The upgrade of RKE2 where nothing is to be done, or nothing may be; test_1_upgrade.py upgrades a running cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_1_upgrade import RELEASE, RELEASE_BEFORE, releases
from tests.platform.conftest import play

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def kubeconfig(description: dict[str, Any]) -> Path:
    return Path(description["secrets_path"]).parent / "ansible/kubeconfig"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "op_upgrade_rke2_version: not given"),
        ({"op_upgrade_rke2_version": "1.36"}, "op_upgrade_rke2_version: 1.36 is not an RKE2 release in full"),
        ({"op_upgrade_rke2_version": RELEASE_BEFORE}, "RKE2 cannot be downgraded in place"),
    ],
)
def test_wrong_version_is_rejected_and_nothing_is_changed(
    kubeconfig: Path, inputs: dict[str, str], message: str
) -> None:
    before = releases(kubeconfig)
    run = play("-e", json.dumps(inputs), playbook="playbooks/operations/upgrade_rke2.yml")
    assert run.code != 0
    assert message in run.text, run.excerpt
    assert run.changed == {} and releases(kubeconfig) == before


@pytest.mark.parametrize("mode", [["--check"], []], ids=["check mode", "run"])
def test_upgrade_to_the_running_version_changes_nothing(kubeconfig: Path, mode: list[str]) -> None:
    assert set(releases(kubeconfig).values()) == {RELEASE}
    inputs = f"op_upgrade_rke2_version={RELEASE}"
    run = play(*mode, "-e", inputs, playbook="playbooks/operations/upgrade_rke2.yml")
    assert run.code == 0, run.excerpt
    assert run.changed == {}
