"""What a restore of the whole site starts from, and what it reports."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_list import (
    Expected,
    recovery,
    restore_report,
)
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import Manifest

EXPECTED = [
    *(Expected(part, host) for part in ("etcd", "config") for host in ("server-1", "server-2")),
    Expected("postgresql"),
    Expected("ceph", prefix="ceph/monitor-"),
    Expected("ceph", prefix="ceph/bucket-media-"),
]


def made(key: str, hour: int, host: str = "server-1", environment: str = "prod") -> Manifest:
    created = f"2026-11-30T{hour:02}:00:00Z"
    return Manifest(key.partition("/")[0], environment, key, 10, "0" * 64, created, host, "10.0.0.1", {})


def entry(manifest: Manifest, size_bytes: int = 10) -> Entry:
    return Entry(manifest.object, size_bytes, "", manifest.created.replace("Z", "+00:00"))


GOOD = [
    made("etcd/snapshot-server-1-1", 6),
    made("etcd/snapshot-server-2-2", 12, "server-2"),
    made("etcd/snapshot-server-1-0", 1),
    made("postgresql/20261130", 11),
    made("ceph/monitor-20261130T030000Z.tar", 3),
    made("ceph/bucket-media-20261130T030000Z.tar", 3),
    made("ceph/bucket-media-20261130T020000Z.tar", 2),
    made("ceph/bucket-media-copy-20261130T040000Z.tar", 4),
]


def objects(manifests: list[Manifest], **sizes: int) -> dict[str, Entry]:
    return {manifest.object: entry(manifest, sizes.get(manifest.host, 10)) for manifest in manifests}


def test_the_newest_good_snapshot_of_each_series_is_chosen() -> None:
    found: dict[str, Any] = recovery(EXPECTED, GOOD, objects(GOOD), "prod")
    assert [point["object"] for point in found["points"]] == [
        "etcd/snapshot-server-2-2",
        "postgresql/20261130",
        "ceph/bucket-media-20261130T030000Z.tar",
    ]
    assert found["missing"] == []
    assert found["written_at"] == "2026-11-30T12:00:00Z"


def test_a_truncated_snapshot_is_not_chosen() -> None:
    found: dict[str, Any] = recovery(EXPECTED, GOOD, objects(GOOD, **{"server-2": 0}), "prod")
    assert found["points"][0]["object"] == "etcd/snapshot-server-1-1"


@pytest.mark.parametrize(
    ("manifests", "missing"),
    [
        ([], ["etcd", "postgresql", "ceph"]),
        ([manifest for manifest in GOOD if manifest.part != "postgresql"], ["postgresql"]),
        ([made(manifest.object, 1, environment="stage") for manifest in GOOD], ["etcd", "postgresql", "ceph"]),
    ],
    ids=["empty bucket", "one part", "another environment"],
)
def test_a_part_without_a_good_snapshot_is_missing(manifests: list[Manifest], missing: list[str]) -> None:
    found: dict[str, Any] = recovery(EXPECTED, manifests, objects(manifests), "prod")
    assert [line.partition(":")[0] for line in found["missing"]] == missing


def test_the_report_has_the_recovery_point_and_time_of_each_part() -> None:
    found: dict[str, Any] = recovery(EXPECTED, GOOD, objects(GOOD), "prod")
    plan = found | {
        "began": "2026-11-30T13:00:00Z",
        "restored": {
            "ceph": "2026-11-30T13:05:00Z",
            "etcd": "2026-11-30T13:10:00Z",
            "postgresql": "2026-11-30T13:12:00Z",
        },
    }
    report: dict[str, Any] = restore_report(plan, "2026-11-30 11:59:00.5+00", "2026-11-30T13:20:00Z", "prod")
    assert report["site_rto_seconds"] == 1200
    assert [(part["part"], part["rpo_seconds"], part["rto_seconds"]) for part in report["parts"]] == [
        ("ceph", 9 * 3600, 300),
        ("etcd", 0, 600),
        ("postgresql", 59, 720),
    ]
