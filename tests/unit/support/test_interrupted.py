"""The moment of the kill is read from the output of a run."""

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
def test_lines_count_only_one_after_the_other(output: str, shown: bool) -> None:
    assert shows(output, ["PLAY [a]", "TASK [b]"]) is shown


def test_the_bootstrap_is_found_in_the_role_by_what_it_runs() -> None:
    play, task = bootstrap_lines()
    assert play.startswith("PLAY [") and task.startswith("TASK [ceph : bootstrap | ")
