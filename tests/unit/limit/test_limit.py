"""A run that `--limit` restricts to a part of the required hosts fails with one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.playbooks import run_playbook

GROUPS = {"ceph": ["ceph-1", "ceph-2", "ceph-3"], "rke2_server": ["server-1"], "postgresql": ["postgresql-1"]}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    children = {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in GROUPS.items()}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": children, "vars": {"ansible_connection": "local"}}}))
    return path


@pytest.mark.parametrize(
    ("limit", "left_out"),
    [
        ("server-1", "ceph-1, ceph-2, ceph-3, localhost, postgresql-1"),
        ("all:!localhost", "localhost"),
        ("localhost,server-1,ceph", "postgresql-1"),
    ],
)
def test_the_platform_is_not_verified_in_part(tmp_path: Path, inventory: Path, limit: str, left_out: str) -> None:
    code, output = run_playbook(tmp_path, inventory, "playbooks/verify.yml", "--limit", limit)
    assert code != 0
    assert f"{left_out}: not in this run" in " ".join(output.split())


CEPH = [
    {
        "hosts": "ceph",
        "gather_facts": False,
        "vars": {"ceph_members": "{{ groups['ceph'] }}", "ceph_version": "20.2.4"},
        "tasks": [
            {
                "ansible.builtin.set_fact": {
                    "__ceph_plan": {"faults": [], "reachable": False, "bootstrap_needed": False},
                }
            },
            {"ansible.builtin.include_role": {"name": "ceph", "tasks_from": "check", "rolespec_validate": False}},
        ],
    }
]


@pytest.mark.parametrize(("limit", "left_out"), [("ceph-1,ceph-3", "ceph-2"), ("ceph", "")])
def test_a_storage_cluster_is_not_checked_in_part(tmp_path: Path, inventory: Path, limit: str, left_out: str) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump(CEPH))
    code, output = run_playbook(tmp_path, inventory, playbook, "--limit", limit)
    assert (code != 0) == bool(left_out), output
    assert (f"{left_out}: not in this run" in " ".join(output.split())) == bool(left_out)


def test_the_keys_of_volumes_are_not_replaced_by_empty_ones(tmp_path: Path, inventory: Path) -> None:
    code, output = run_playbook(tmp_path, inventory, "playbooks/ceph_csi.yml", "--limit", "rke2_server")
    assert code != 0
    assert "ceph-1: not in this run, so that the keys of the volumes' users were not read." in " ".join(output.split())
