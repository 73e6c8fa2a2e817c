"""The play of Ceph as operations skip it in check mode: Ansible renders also what skipped tasks are delegated to."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.playbooks import REPOSITORY, run_playbook


def test_a_skipped_play_needs_no_plan(tmp_path: Path) -> None:
    """As after `replace_ceph_host --check` of the first host: the plan is unknown on it."""
    inventory = tmp_path / "hosts.yml"
    hosts = dict.fromkeys(("ceph-1", "ceph-2", "ceph-3"))
    variables = {"ansible_connection": "local", "platform_domain": "x.test"}
    inventory.write_text(yaml.safe_dump({"ceph": {"hosts": hosts, "vars": variables}}))
    play = {"ansible.builtin.import_playbook": str(REPOSITORY / "playbooks/ceph.yml"), "when": "not ansible_check_mode"}
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    code, output = run_playbook(tmp_path, inventory, playbook, "--check")
    assert code == 0, output
