"""Flags: the platform unsets what it has set, also after an interrupted run, and nothing else."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_flags

MARKER = "slipway/held/noout"


@pytest.mark.parametrize(
    ("set_", "held", "state", "commands"),
    [
        (False, False, "set", [["config-key", "set", MARKER, "held"], ["osd", "set", "noout"]]),
        (False, True, "set", [["osd", "set", "noout"]]),  # interrupted between the two
        (True, True, "set", []),
        (True, False, "set", []),  # a person's
        (True, True, "unset", [["osd", "unset", "noout"], ["config-key", "rm", MARKER]]),
        (False, True, "unset", [["config-key", "rm", MARKER]]),
        (True, False, "unset", []),  # a person's stays
        (False, False, "unset", []),
    ],
)
def test_commands(set_: bool, held: bool, state: str, commands: list[list[str]]) -> None:
    assert ceph_flags.plan({"set": set_, "held": held}, "noout", state) == commands


class Recorded:
    def execute(self, commands: list[list[str]], strict: bool) -> list[dict[str, Any]]:
        assert commands == [["config-key", "exists", MARKER]]
        return [{"code": errno.ENOENT, "output": "", "message": f"key '{MARKER}' doesn't exist"}]

    def json(self, args: list[str]) -> Any:
        return {"flags_set": ["noout", "sortbitwise"]}


def test_reading() -> None:
    assert ceph_flags.read(Recorded(), "noout") == {"set": True, "held": False}  # type: ignore[arg-type]
