"""Read pools, file systems and clients of a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_resources import Wanted, view_of

QUESTIONS = {
    "pools": ["osd", "pool", "ls", "detail"],
    "rules": ["osd", "crush", "rule", "dump"],
    "filesystems": ["fs", "dump"],
    "mds": ["orch", "ls", "mds", "--export"],
    "auth": ["auth", "ls"],
    "insecure_keys": ["config", "get", "mon", "mon_auth_allow_insecure_key"],
}


def more_questions(wanted: Wanted) -> list[list[str]]:
    """What is asked of each file system and pool; one that is not there refuses."""
    return [
        *(_groups_question(filesystem["name"]) for filesystem in wanted.filesystems),
        *(_namespaces_question(pool["name"]) for pool in wanted.pools if pool.get("namespaces")),
    ]


def _groups_question(filesystem: str) -> list[str]:
    return ["fs", "subvolumegroup", "ls", filesystem]


def _namespaces_question(pool: str) -> list[str]:
    return ["rbd", "namespace", "ls", pool]


def look(cluster: Cluster, wanted: Wanted) -> dict[str, Any]:
    """One look at everything; namespaces and groups of what is declared and there."""
    answers: dict[str, Any] = dict(zip(QUESTIONS, cluster.batch(list(QUESTIONS.values())), strict=True))
    view = view_of(answers)
    groups = [one["name"] for one in wanted.filesystems if view["filesystems"].get(one["name"], {}).get("active")]
    if groups:
        listed = cluster.batch([_groups_question(name) for name in groups])
        view["groups"] = {name: [group["name"] for group in found] for name, found in zip(groups, listed, strict=True)}
    pools = [
        pool["name"]
        for pool in wanted.pools
        if pool.get("namespaces") and "rbd" in view["pools"].get(pool["name"], {}).get("applications", [])
    ]
    if pools:
        listed = cluster.batch([_namespaces_question(name) for name in pools])
        view["namespaces"] |= {name: [one["name"] for one in found] for name, found in zip(pools, listed, strict=True)}
    return view
