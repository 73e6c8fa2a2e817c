"""What is kept of the output of a program: its first error, and its end."""

from __future__ import annotations

import re

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.output import error_line, shortened

from tests.static.repository import REPOSITORY

APT = """Reading package lists...
E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)
N: Be aware that removing the lock file is not a solution and may break your system.
E: Unable to lock directory /var/lib/apt/lists/
"""
TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/error.py", line 3, in <module>
    raise RuntimeError("failed")
RadosError: error connecting to the cluster
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (APT, "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)"),
        (TRACEBACK, "RadosError: error connecting to the cluster"),
        ("started\npanic: runtime\ngoroutine 1\n", "panic: runtime"),
        ("0 errors found\nall is well\n", "all is well"),
        (" \n", "no output"),
    ],
)
def test_the_first_error_is_found(output: str, line: str) -> None:
    assert error_line(output) == line


def test_a_short_output_is_complete() -> None:
    assert shortened(APT) == APT.strip()
    assert shortened("") == "no output"


def test_the_first_error_and_the_end_are_kept() -> None:
    output = APT + "".join(f"W: Ignoring file {number}\n" for number in range(500)) + "the end\n"
    found = shortened(output, 300)
    assert len(found) < 310
    assert found.startswith("E: Could not get lock /var/lib/apt/lists/lock.")
    assert found.endswith("the end")
    assert "\n…\nW: Ignoring file 49" in found


@pytest.mark.parametrize("limit", [1, 20, 60, 200])
def test_a_limit_of_any_size_is_kept(limit: int) -> None:
    found = shortened("x" * 80 + "\nerror: " + "y" * 300, limit)
    assert len(found) <= limit + 3


def test_no_module_cuts_an_output_to_its_end() -> None:
    """`text[-500:]` loses the first error: the helper keeps it. Of a log, the end is what is meant."""
    folders = ("collections/ansible_collections/slipway/platform/plugins", "roles")
    cut = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"\[-\d{2,}:\]|splitlines\(\).*\[-1\]|words\[-1\]", line) and "self.log" not in line
    ]
    assert cut == []
