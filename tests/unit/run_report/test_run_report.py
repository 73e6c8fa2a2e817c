"""The report of a run: pure arithmetic, and one real run of Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.callback import run_report

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (("inventories/prod",), "prod"),
        (("inventories/prod/",), "prod"),
        (("inventories/prod/hosts.yml",), "prod"),
        (("more", "inventories/prod"), "prod"),
        (("localhost,",), "none"),
        ((), "none"),
        (None, "none"),
    ],
)
def test_the_environment_is_the_inventorys_folder(sources: tuple[str, ...] | None, name: str) -> None:
    assert run_report.environment_of(sources) == name


def test_the_table_and_the_file_agree() -> None:
    report = run_report.Report("prod", datetime(2026, 11, 21, tzinfo=UTC))
    report.add_time("base", 1.25)
    report.add_time("rke2", 2.0)
    report.add_time("base", 1.0)
    report.add_change("base", "b")
    report.add_change("base", "a")
    report.ended = report.started + timedelta(seconds=4.5)
    report.simulation = "RKE2 is a simulation."
    document = report.document()
    assert document["seconds"] == 4.5
    assert document["phases"][0] == {
        "name": "base",
        "seconds": 2.2,
        "changed": 2,
        "changed_by_host": {"a": 1, "b": 1},
    }
    assert report.lines() == [
        "phase  seconds  changed",
        "base       2.2        2",
        "rke2       2.0        0",
        "all        4.5        2",
        "simulation: RKE2 is a simulation.",
    ]


PLAY = """
- name: Write
  hosts: localhost
  gather_facts: false
  vars: {token: canary-8f1c}
  tasks:
    - name: Change something
      ansible.builtin.debug: {msg: "{{ token }}"}
      changed_when: true
    - name: Add to the report
      ansible.builtin.set_stats:
        data: {run_report: {versions: {rke2: v1}, simulation: so it is}}
    - name: Reach a host that boots
      ansible.builtin.ping:
      vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 9}
      ignore_unreachable: true
    - name: End badly
      ansible.builtin.fail: {msg: "{{ token }}"}
      when: fail | default(false)
"""


@pytest.mark.parametrize("fail", [False, True])
def test_a_real_run_leaves_a_report_without_secrets(tmp_path: Path, fail: bool) -> None:
    play = tmp_path / "write.yml"
    play.write_text(PLAY)
    folder = tmp_path / "reports"
    inventory = tmp_path / "dev"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text("all: {}\n")
    ansible = Path(sys.executable).parent / "ansible-playbook"
    extra = ["--extra-vars", json.dumps({"fail": fail})]
    run = subprocess.run(
        [str(ansible), str(play), "--inventory", str(inventory), *extra],
        cwd=REPOSITORY,
        env=os.environ
        | {"ANSIBLE_CALLBACKS_ENABLED": "slipway.platform.run_report", "SLIPWAY_ARTIFACTS": str(folder)}
        | {"ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == (2 if fail else 0), run.stdout + run.stderr
    (path,) = folder.glob("dev/*/run.json")
    text = path.read_text()
    report = json.loads(text)
    assert "canary" not in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert report["result"] == ("failed" if fail else "ok")
    assert report["failed_tasks"] == ([{"phase": "write", "task": "End badly", "host": "localhost"}] if fail else [])
    assert report["phases"][0]["name"] == "write"
    assert report["phases"][0]["changed_by_host"] == {"localhost": 1}
    assert report["versions"]["rke2"] == "v1"
    assert report["simulation"] == "so it is"
    assert "simulation: so it is" in run.stdout
