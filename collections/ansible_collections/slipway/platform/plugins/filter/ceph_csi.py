"""Filters of the role ceph_csi."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
VELERO_LABEL = "velero.io/csi-volumesnapshot-class"
SECRET_PREFIX = "csi.storage.k8s.io/"
USES = ("provisioner", "controller-expand", "node-stage")
SNAPSHOT_USE = "snapshotter"


def ceph_csi_classes(
    name: str, driver: str, secret: str, parameters: Mapping[str, str], reclaim_policy: str, default: bool = False
) -> list[dict[str, Any]]:
    """The StorageClass and the VolumeSnapshotClass of a driver (rbd or cephfs), both of this name."""
    namespace, provisioner = f"ceph-csi-{driver}", f"{driver}.csi.ceph.com"
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "annotations": {DEFAULT_CLASS: str(bool(default)).lower()}},
            "provisioner": provisioner,
            "parameters": {**parameters, **_secrets(secret, namespace, USES)},
            "reclaimPolicy": reclaim_policy,
            "allowVolumeExpansion": True,
            "volumeBindingMode": "Immediate",  # every node reaches every monitor: there is no topology
        },
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": name, "labels": {VELERO_LABEL: "true"}},
            "driver": provisioner,
            "deletionPolicy": reclaim_policy,
            "parameters": {"clusterID": parameters["clusterID"], **_secrets(secret, namespace, (SNAPSHOT_USE,))},
        },
    ]


def _secrets(secret: str, namespace: str, uses: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for use in uses:
        found[f"{SECRET_PREFIX}{use}-secret-name"] = secret
        found[f"{SECRET_PREFIX}{use}-secret-namespace"] = namespace
    return found


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"ceph_csi_classes": ceph_csi_classes}
