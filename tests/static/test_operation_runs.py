"""Every operation runs in a test: an operation that no test runs is one that fails on the day it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.static.operation_runs import operations, run_by_plays, run_by_python, run_by_tests
from tests.static.repository import REPOSITORY


def test_every_operation_runs_in_a_test() -> None:
    assert sorted(set(operations()) - run_by_tests()) == []


def test_every_operation_that_a_test_runs_exists() -> None:
    assert sorted(run_by_tests() - set(operations())) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('play("-e", "a=1", playbook="playbooks/operations/destroy.yml")', {"destroy"}),
        ('site.played("operations/drill_postgresql", op_x=1)', {"drill_postgresql"}),
        ('playbook = "playbooks/operations/upgrade_ceph.yml"\nplay("-e", inputs, playbook=playbook)', {"upgrade_ceph"}),
        ('subprocess.Popen(["ansible-playbook", "playbooks/operations/destroy.yml", "-i", x])', {"destroy"}),
        ('subprocess.run([ansible, *("playbooks/operations/create_secrets.yml", "-i")])', {"create_secrets"}),
        ('play("--check", playbook="playbooks/operations/destroy.yml")', set()),
        ('yaml.safe_load((REPOSITORY / "playbooks/operations/destroy.yml").read_text())', set()),
        ('play(playbook=f"playbooks/operations/{verb}.yml")', set()),
        ('print("playbooks/operations/destroy.yml")', set()),
        ('play(playbook="playbooks/ceph.yml")', set()),
    ],
)
def test_a_run_is_found_in_python(source: str, found: set[str]) -> None:
    assert run_by_python(source) == found


def test_a_run_is_found_in_a_scenario() -> None:
    folder = REPOSITORY / "molecule/provision"
    imported = {"name": "a", "ansible.builtin.import_playbook": "../../playbooks/operations/destroy.yml"}
    assert run_by_plays([imported, {"name": "b", "hosts": "all"}], folder) == {"destroy"}
    assert run_by_plays([{"ansible.builtin.import_playbook": "../../playbooks/base.yml"}], folder) == set()
    assert run_by_plays({"scenario": {}}, Path("/")) == set()
