"""The time of the kill is derived from the output of a run."""

from __future__ import annotations

import pytest

from tests.platform.test_1_interrupted import bootstrap_lines, shows


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("", False),
        ("PLAY [a]\nTASK [b]\n", True),
        ("TASK [b]\nPLAY [a]\n", False),
        ("TASK [b]\nPLAY [a]\nTASK [b]", True),
    ],
)
def test_lines_must_appear_in_order(output: str, shown: bool) -> None:
    assert shows(output, ["PLAY [a]", "TASK [b]"]) is shown


def test_the_bootstrap_task_is_found_by_its_module() -> None:
    play, task = bootstrap_lines()
    assert play.startswith("PLAY [") and task.startswith("TASK [ceph : bootstrap | ")
