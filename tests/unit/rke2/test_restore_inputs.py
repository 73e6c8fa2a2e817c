"""The inputs of playbooks/operations/restore_etcd.yml, rejected on the controller before a host is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks import run_playbook


@pytest.mark.parametrize(
    ("inputs", "messages"),
    [
        (
            {},
            ["op_restore_etcd_confirm: not given. Set it with -e"],
        ),
        (
            {"op_restore_etcd_confirm": "trial"},
            [
                "op_restore_etcd_snapshot: no source is set. Set one of op_restore_etcd_snapshot, op_restore_etcd_file",
            ],
        ),
        (
            {"op_restore_etcd_confirm": "prod", "op_restore_etcd_snapshot": "a/b", "op_restore_etcd_file": "b"},
            [
                "op_restore_etcd_confirm: 'prod' is not the environment",
                "op_restore_etcd_snapshot and op_restore_etcd_file are set",
                "op_restore_etcd_file: b is not an absolute path",
                "op_restore_etcd_snapshot: a/b is not a file name",
            ],
        ),
    ],
)
def test_all_faults_of_the_inputs_are_reported_at_once(
    tmp_path: Path, inputs: dict[str, Any], messages: list[str]
) -> None:
    values = json.dumps(inputs | {"platform_environment": "trial"})
    code, output = run_playbook(tmp_path, "localhost,", "playbooks/operations/restore_etcd.yml", "-e", values)
    assert code != 0
    shown = " ".join(output.split())
    assert [message for message in messages if message not in shown] == [], output
