"""What the hosts of the storage cluster saw, as findings."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.verify import storage_findings

EXPECTED = ["AUTH_INSECURE_KEYS_ALLOWED"]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({"view": {"muted": EXPECTED}}, []),
        (
            {"view": {"muted": [*EXPECTED, "OSD_DOWN"]}},
            ["the storage warning OSD_DOWN is muted, which nobody declared"],
        ),
        ({"view": {"muted": []}, "unmet": ["1 of 3 OSDs are down"]}, ["seen from a, 1 of 3 OSDs are down"]),
        ({"unreachable": True}, ["a cannot be reached by SSH"]),
        ({"msg": "no daemon runs here"}, ["a could not be looked at (no daemon runs here)"]),
        (None, ["a could not be looked at (it was not part of this run)"]),
    ],
)
def test_findings(seen: dict[str, Any] | None, says: list[str]) -> None:
    hostvars = {"a": {"__verify_storage_seen": seen} if seen is not None else {}}
    assert storage_findings(hostvars, ["a"], EXPECTED) == says
