"""States of placement groups: moving data is complete, a missing copy is not."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_status import unclean


@pytest.mark.parametrize(
    "state",
    [
        "active+clean",
        "active+clean+scrubbing+deep",
        "active+clean+snaptrim_wait",
        "active+remapped+backfilling",
        "active+remapped+backfill_wait",
    ],
)
def test_a_placement_group_with_all_copies_is_complete(state: str) -> None:
    assert unclean([{"state_name": state, "count": 3}]) == {}


@pytest.mark.parametrize(
    "state",
    [
        "peering",
        "remapped+peering",
        "unknown",
        "active+undersized+degraded",
        "active+undersized+degraded+remapped+backfilling",
        "active+recovering+degraded",
        "active+clean+inconsistent",
    ],
)
def test_an_inactive_or_incomplete_placement_group_is_unclean(state: str) -> None:
    assert unclean([{"state_name": "active+clean", "count": 30}, {"state_name": state, "count": 3}]) == {state: 3}
