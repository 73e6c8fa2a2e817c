"""Flags: what the platform set it unsets, whatever was killed between, and nothing else."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_flags

NOTE = "slipway/held/noout"


@pytest.mark.parametrize(
    ("set_", "held", "state", "commands"),
    [
        (False, False, "set", [["config-key", "set", NOTE, "held"], ["osd", "set", "noout"]]),
        (False, True, "set", [["osd", "set", "noout"]]),  # killed between the two
        (True, True, "set", []),
        (True, False, "set", []),  # a person's
        (True, True, "unset", [["osd", "unset", "noout"], ["config-key", "rm", NOTE]]),
        (False, True, "unset", [["config-key", "rm", NOTE]]),
        (True, False, "unset", []),  # a person's stays
        (False, False, "unset", []),
    ],
)
def test_what_is_done(set_: bool, held: bool, state: str, commands: list[list[str]]) -> None:
    assert ceph_flags.plan({"set": set_, "held": held}, "noout", state) == commands


class Recorded:
    def ask(self, commands: list[list[str]], strict: bool) -> list[dict[str, Any]]:
        assert commands == [["config-key", "exists", NOTE]]
        return [{"code": errno.ENOENT, "output": "", "message": f"key '{NOTE}' doesn't exist"}]

    def json(self, args: list[str]) -> Any:
        return {"flags_set": ["noout", "sortbitwise"]}


def test_reading() -> None:
    assert ceph_flags.read(Recorded(), "noout") == {"set": True, "held": False}  # type: ignore[arg-type]
