"""Read the OSDs of a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_plan import parse_osds

COMMANDS = [
    ["osd", "dump"],
    ["osd", "metadata"],
    ["osd", "tree"],
    # All services and daemons: restricted to OSDs, the commands print a sentence while there is none.
    ["orch", "ls", "--export"],
    ["orch", "ps"],
]


def read_osds(cluster: Cluster) -> dict[str, Any]:
    return parse_osds(*cluster.batch(COMMANDS))
