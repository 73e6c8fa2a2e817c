"""The simulation of ceph-csi's drivers: the life of a volume, on folders and with the resources in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.ceph_csi import ceph_csi_classes

from lab.charts.ceph_csi import driver as simulation

from .memory import Resources

NODES = ("node-1", "node-2", "node-3")
RBD, SPACE = "rbd.csi.ceph.com", "default"
CLAIMS = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims"
SNAPSHOTS = f"{simulation.SNAPSHOTS}/namespaces/{SPACE}/volumesnapshots"


class Storage(Resources):
    """Lists over all namespaces, and merge patches of nested objects."""

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        plural = path.rpartition("/")[2]
        if method == "GET" and plural in self.kinds:
            return {"items": [item for key, item in self.objects.items() if key.split("/")[-2] == plural]}
        if method == "PATCH":
            part, change = next(iter(body.items()))
            item = self.objects[path.removesuffix("/status")]
            body = {part: {**item.get(part, {}), **change}}
        return super().call(method, path, body, kind)


@pytest.fixture
def storage() -> Storage:
    storage = Storage(
        "nodes", "persistentvolumes", "persistentvolumeclaims", "storageclasses", "volumesnapshotclasses",
        "volumesnapshots", "volumesnapshotcontents",
    )  # fmt: skip
    for name in NODES:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        storage.call("POST", "/api/v1/nodes", {"metadata": {"name": name}, "status": ready})
    parameters = {"clusterID": "fsid"}
    block, snapshots = ceph_csi_classes("ceph-block", "rbd", "csi-rbd-secret", parameters, "Delete", default=True)
    storage.call("POST", f"{simulation.STORAGE}/storageclasses", block)
    storage.call("POST", f"{simulation.SNAPSHOTS}/volumesnapshotclasses", snapshots)
    data = {"userID": "dXNlcg==", "userKey": "a2V5"}
    storage.call(
        "POST", "/api/v1/namespaces/ceph-csi-rbd/secrets", {"metadata": {"name": "csi-rbd-secret"}, "data": data}
    )
    return storage


@pytest.fixture
def drivers(storage: Storage, tmp_path: Path) -> list[simulation.Driver]:
    config = tmp_path / "config.json"
    config.write_text(json.dumps([{"clusterID": "fsid", "monitors": ["10.0.0.1:3300"]}]))
    return [simulation.Driver(storage, RBD, name, tmp_path / name, config) for name in NODES]


def reconcile(storage: Storage, drivers: list[simulation.Driver]) -> None:
    """One round of every node, then what Kubernetes' own controller does: it binds a claim to its volume."""
    for driver in drivers:
        driver.reconcile()
    for volume in storage.items_of("persistentvolumes"):
        volume.setdefault("status", {"phase": "Bound"})
        claim = storage.objects.get(f"{CLAIMS}/{volume['spec']['claimRef']['name']}")
        if claim is None:
            volume["status"] = {"phase": "Released"}
        else:
            claim["spec"]["volumeName"] = volume["metadata"]["name"]


def claim(storage: Storage, name: str, **spec: Any) -> None:
    wanted = {"storageClassName": "ceph-block", "accessModes": ["ReadWriteOnce"]}
    wanted |= {"resources": {"requests": {"storage": "1Gi"}}, **spec}
    storage.call("POST", CLAIMS, {"metadata": {"name": name, "namespace": SPACE, "uid": f"uid-{name}"}, "spec": wanted})


def folder(storage: Storage) -> Path:
    (volume,) = storage.items_of("persistentvolumes")
    return Path(volume["spec"]["hostPath"]["path"])


def test_a_volume_lives_from_its_claim_to_its_release(storage: Storage, drivers: list[simulation.Driver]) -> None:
    claim(storage, "data")
    for _ in range(2):
        reconcile(storage, drivers)
    path = folder(storage)
    assert path.is_dir() and path.stat().st_mode & 0o777 == 0o777
    storage.objects[f"{CLAIMS}/data"]["spec"]["resources"]["requests"]["storage"] = "2Gi"
    reconcile(storage, drivers)
    assert storage.objects[f"{CLAIMS}/data"]["status"]["capacity"] == {"storage": "2Gi"}
    storage.call("DELETE", f"{CLAIMS}/data")
    for _ in range(2):
        reconcile(storage, drivers)
    assert storage.items_of("persistentvolumes") == [] and not path.exists()


def test_a_snapshot_keeps_what_was_written_before_it(storage: Storage, drivers: list[simulation.Driver]) -> None:
    claim(storage, "data")
    reconcile(storage, drivers)
    (folder(storage) / "file").write_text("before")
    storage.call("POST", SNAPSHOTS, {
        "metadata": {"name": "saved", "namespace": SPACE, "uid": "uid-saved"},
        "spec": {"volumeSnapshotClassName": "ceph-block", "source": {"persistentVolumeClaimName": "data"}},
    })  # fmt: skip
    reconcile(storage, drivers)
    assert storage.objects[f"{SNAPSHOTS}/saved"]["status"]["readyToUse"] is True
    (folder(storage) / "file").write_text("after")
    claim(storage, "restored", dataSource={"kind": "VolumeSnapshot", "name": "saved"})
    reconcile(storage, drivers)
    volumes = {item["spec"]["claimRef"]["name"]: item for item in storage.items_of("persistentvolumes")}
    restored = Path(volumes["restored"]["spec"]["hostPath"]["path"]) / "file"
    assert restored.read_text() == "before"
    storage.call("DELETE", f"{SNAPSHOTS}/saved")
    reconcile(storage, drivers)
    assert storage.items_of("volumesnapshotcontents") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"userKey": ""}, "Secret ceph-csi-rbd/csi-rbd-secret has no userKey"),
        ({"userID": "", "userKey": ""}, "has no userID and no userKey"),
    ],
)
def test_without_credentials_there_is_no_volume(
    storage: Storage, drivers: list[simulation.Driver], capsys: pytest.CaptureFixture[str], change: Any, reason: str
) -> None:
    storage.objects["/api/v1/namespaces/ceph-csi-rbd/secrets/csi-rbd-secret"]["data"] |= change
    claim(storage, "data")
    for _ in range(2):
        reconcile(storage, drivers)
    assert storage.items_of("persistentvolumes") == []
    assert capsys.readouterr().err.count(reason) == 1


def test_a_class_of_an_unknown_cluster_makes_no_volume(
    storage: Storage, drivers: list[simulation.Driver], capsys: pytest.CaptureFixture[str]
) -> None:
    drivers[0].config.write_text("[]")
    claim(storage, "data")
    reconcile(storage, drivers)
    assert storage.items_of("persistentvolumes") == []
    assert "clusterID fsid is not one of the configuration's" in capsys.readouterr().err


def test_sizes_are_compared_as_numbers() -> None:
    assert simulation.size_bytes("1Gi") == simulation.size_bytes("1024Mi") == 2**30
