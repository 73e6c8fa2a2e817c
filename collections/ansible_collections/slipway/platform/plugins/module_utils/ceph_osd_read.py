"""Read the OSDs of a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_plan import view_of

QUESTIONS = [
    ["osd", "dump"],
    ["osd", "metadata"],
    ["osd", "tree"],
    # Of everything: where there is no OSD yet, the narrower questions are answered by a sentence.
    ["orch", "ls", "--export"],
    ["orch", "ps"],
]


def look(cluster: Cluster) -> dict[str, Any]:
    return view_of(*cluster.batch(QUESTIONS))
