"""What is read of the placement groups: data on the move is whole, a missing copy is not."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.ceph_view import unclean


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
def test_a_group_with_all_its_copies_is_whole(state: str) -> None:
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
def test_a_group_that_does_not_serve_or_lacks_a_copy_is_told(state: str) -> None:
    assert unclean([{"state_name": "active+clean", "count": 30}, {"state_name": state, "count": 3}]) == {state: 3}
