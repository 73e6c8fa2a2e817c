"""Read pools, file systems and clients of a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_resources import Wanted, parse_resources

COMMANDS = {
    "pools": ["osd", "pool", "ls", "detail"],
    "rules": ["osd", "crush", "rule", "dump"],
    "filesystems": ["fs", "dump"],
    "mds": ["orch", "ls", "mds", "--export"],
    "auth": ["auth", "ls"],
    "insecure_keys": ["config", "get", "mon", "mon_auth_allow_insecure_key"],
}


def detail_commands(wanted: Wanted) -> list[list[str]]:
    """Commands for each file system and pool; they fail for one that does not exist."""
    return [
        *(_groups_command(filesystem["name"]) for filesystem in wanted.filesystems),
        *(_namespaces_command(pool["name"]) for pool in wanted.pools if pool.get("namespaces")),
    ]


def _groups_command(filesystem: str) -> list[str]:
    return ["fs", "subvolumegroup", "ls", filesystem]


def _namespaces_command(pool: str) -> list[str]:
    return ["rbd", "namespace", "ls", pool]


def read_resources(cluster: Cluster, wanted: Wanted) -> dict[str, Any]:
    """All resources; namespaces and groups only of declared pools and file systems that exist."""
    answers: dict[str, Any] = dict(zip(COMMANDS, cluster.batch(list(COMMANDS.values())), strict=True))
    view = parse_resources(answers)
    groups = [one["name"] for one in wanted.filesystems if view["filesystems"].get(one["name"], {}).get("active")]
    if groups:
        listed = cluster.batch([_groups_command(name) for name in groups])
        view["groups"] = {name: [group["name"] for group in found] for name, found in zip(groups, listed, strict=True)}
    pools = [
        pool["name"]
        for pool in wanted.pools
        if pool.get("namespaces") and "rbd" in view["pools"].get(pool["name"], {}).get("applications", [])
    ]
    if pools:
        listed = cluster.batch([_namespaces_command(name) for name in pools])
        view["namespaces"] |= {name: [one["name"] for one in found] for name, found in zip(pools, listed, strict=True)}
    return view
