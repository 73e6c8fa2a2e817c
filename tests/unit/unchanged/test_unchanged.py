"""The callback that makes a change in check mode a failure, on real runs of Ansible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Write a file
      ansible.builtin.copy:
        content: wanted
        dest: "{{ target }}"
        mode: "0600"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(PLAY)
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            folder / "play.yml",
            "--inventory=localhost,",
            f"--extra-vars=target={folder / 'file'} ansible_python_interpreter={sys.executable}",
            *arguments,
        ],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "ANSIBLE_CALLBACKS_ENABLED": "slipway.platform.unchanged",
            "ANSIBLE_CACHE_PLUGIN": "memory",
            "ANSIBLE_FORCE_COLOR": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("there", "arguments", "code"),
    [("wanted", ["--check"], 0), ("other", ["--check"], 2), ("other", [], 0)],
    ids=["nothing to change", "a change in check mode", "a change that is made"],
)
def test_only_a_change_in_check_mode_fails(tmp_path: Path, there: str, arguments: list[str], code: int) -> None:
    (tmp_path / "file").write_text(there)
    (tmp_path / "file").chmod(0o600)
    done = run(tmp_path, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("Check mode reports changes on localhost" in done.stderr) == bool(code)
