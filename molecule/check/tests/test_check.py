"""Faults of an invalid environment, against the running cloud."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
testinfra_hosts = ["local://"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"platform_network_cidr": "8.0.0.0/16"}', "platform_network_cidr: 8.0.0.0/16 is not private"),
        ('{"platform_hcloud_token": "wrong"}', "does not accept the token"),
        ('{"platform_locations": ["moon1"]}', "platform_locations: moon1 does not exist at Hetzner"),
        ('{"provision_server_types": ["cpx11"]}', "is not sold in"),
    ],
)
def test_a_fault_fails_the_run_with_a_message(value: str, message: str) -> None:
    run = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("playbooks/check.yml", "-i", "molecule/provision/trial", "-e", value),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert message in run.stdout
