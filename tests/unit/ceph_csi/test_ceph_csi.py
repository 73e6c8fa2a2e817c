"""The classes of ceph-csi, and the objects of a check of volumes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.ceph_csi import ceph_csi_classes
from ansible_collections.slipway.platform.plugins.module_utils import volume_check

PARAMETERS = {"clusterID": "fsid", "pool": "kubernetes"}


def test_the_secrets_of_a_class_are_those_of_its_driver() -> None:
    block, snapshots = ceph_csi_classes("ceph-block", "rbd", "csi-rbd-secret", PARAMETERS, "Retain", default=True)
    names = {key: value for key, value in block["parameters"].items() if "secret" in key}
    assert set(names.values()) == {"csi-rbd-secret", "ceph-csi-rbd"}
    assert {key.removeprefix("csi.storage.k8s.io/") for key in names} == {
        f"{use}-secret-{part}"
        for use in ("provisioner", "controller-expand", "node-stage")
        for part in ("name", "namespace")
    }
    assert snapshots["parameters"]["csi.storage.k8s.io/snapshotter-secret-name"] == "csi-rbd-secret"
    assert (block["provisioner"], snapshots["driver"]) == ("rbd.csi.ceph.com", "rbd.csi.ceph.com")


@pytest.mark.parametrize("default", [True, False])
def test_one_class_can_be_the_default(default: bool) -> None:
    (storage_class, _) = ceph_csi_classes("a", "cephfs", "s", PARAMETERS, "Delete", default=default)
    annotations = storage_class["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == str(default).lower()


def test_the_reclaim_policy_applies_to_volumes_and_snapshots() -> None:
    storage_class, snapshots = ceph_csi_classes("a", "rbd", "s", PARAMETERS, "Retain")
    assert (storage_class["reclaimPolicy"], snapshots["deletionPolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize(
    ("item", "conditions"),
    [
        (None, ["is missing, not Bound"]),
        ({"status": {"phase": "Pending"}}, ["is Pending, not Bound"]),
        ({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}, ["has 1Gi, not 2Gi"]),
        ({"status": {"phase": "Bound", "capacity": {"storage": "2048Mi"}}}, []),
    ],
)
def test_a_claim_is_bound_with_its_size(item: Any, conditions: list[str]) -> None:
    assert volume_check.unbound(item, "2Gi") == conditions


def test_a_snapshot_reports_its_error() -> None:
    assert volume_check.unready({"status": {"readyToUse": True}}) == []
    assert volume_check.unready({"status": {"error": {"message": "denied"}}}) == ["is not ready to use (denied)"]


def test_a_pod_is_finished_when_it_succeeded() -> None:
    assert volume_check.unfinished({"status": {"phase": "Succeeded"}}) == []
    assert volume_check.unfinished({"status": {"phase": "Failed"}}) == ["is Failed, not Succeeded"]


def test_the_pod_satisfies_the_restricted_standard() -> None:
    spec = volume_check.pod("a", "image", "claim", "true")["spec"]
    container = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (container["allowPrivilegeEscalation"], container["capabilities"]) == (False, {"drop": ["ALL"]})


@pytest.mark.parametrize(("text", "size"), [("2Gi", 2.0), ("512Mi", 0.5), ("1073741824", 1.0), ("", 0.0)])
def test_sizes_are_numbers(text: str, size: float) -> None:
    assert volume_check.gibibytes(text) == size
