"""A deployment that would restart the runner of its own job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.playbooks import run_playbook


@pytest.mark.parametrize(("is_local", "job", "rejected"), [(True, "7", True), (True, "", False), (False, "7", False)])
def test_a_job_does_not_wait_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_local: bool, job: str, rejected: bool
) -> None:
    monkeypatch.setenv("CI_JOB_ID", job)
    host = {"login": {"is_local": is_local}}
    task = {"ansible.builtin.include_role": {"name": "gitlab_runner", "tasks_from": "drain"}}
    values = {"__gitlab_runner_host": host, "gitlab_runner_drain_timeout_seconds": 1}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": values, "tasks": [task]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    code, output = run_playbook(tmp_path, "localhost,", tmp_path / "play.yml", "--check")
    assert (code != 0) is rejected, output
    assert ("the runner would wait for the job that runs this play" in " ".join(output.split())) is rejected
