"""The simulations' and the roles' objects against a real API server: it accepts and keeps every field that they use."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.platform.plugins.filter.ceph_csi import ceph_csi_classes
from ansible_collections.slipway.platform.plugins.filter.rancher import rancher_setting
from ansible_collections.slipway.platform.plugins.module_utils import volume_check

from lab.charts.ceph_csi import HERE as CEPH_CSI
from lab.charts.ceph_csi import driver as volumes
from lab.charts.client import Cluster as Client
from lab.charts.client import Refused
from lab.charts.rancher import server as rancher
from tests.lab.rke2sim.conftest import Cluster
from tests.support.deadlines import until


class Administrator(Client):
    """The simulations' client, with the certificate of an administrator in place of a pod's token."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        answer = self.cluster.run(self.cluster.api.call(method, path, body, kind=kind))
        if answer.status >= 400:
            raise Refused(answer.status, answer.body.decode())
        return answer.json()

    def apply(self, item: dict[str, Any]) -> Any:
        path = self.cluster.run(self.cluster.api.path_of(item))
        return self.cluster.run(self.cluster.api.apply(path, item))


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Administrator:
    return Administrator(cluster)


def test_rancher_starts_twice_and_keeps_what_the_role_sets(api: Administrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATTLE_SERVER_VERSION", "v2.15.0-simulation")
    monkeypatch.setenv("IMPERATIVE_API_APP_SELECTOR", "rancher")
    password = base64.b64encode(b"correct horse battery").decode()
    api.create("/api/v1/namespaces", {"metadata": {"name": "cattle-system"}})
    bootstrap = {"metadata": {"name": "bootstrap-secret"}, "data": {"bootstrapPassword": password}}
    api.create("/api/v1/namespaces/cattle-system/secrets", bootstrap)
    until(lambda: rancher.ensure(api, "cattle-system"), 60, lambda _: True, errors=(Refused,))
    api.apply(rancher_setting({"key": "server-url", "value": "https://rancher.example.org"}))
    rancher.ensure(api, "cattle-system")
    state = rancher.Rancher(api)
    assert state.setting("server-url") == "https://rancher.example.org"
    assert state.setting("server-version") == "v2.15.0-simulation"
    conditions = api.get(f"{rancher.MANAGEMENT}/clusters/local")["status"]["conditions"]
    assert {"type": "Ready", "status": "True"} in conditions
    token = state.login("admin", "correct horse battery")
    assert token is not None and state.token(token) is not None
    assert state.login("admin", "another password") is None
    assert api.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.ext.cattle.io")["spec"]["service"]["port"] == 6666


@pytest.fixture(scope="module")
def classes(api: Administrator) -> list[dict[str, Any]]:
    """The snapshots' definitions of the chart, and the classes of the role for both drivers."""
    for definition in yaml.safe_load_all((CEPH_CSI / "chart/crds/snapshots.yaml").read_text()):
        api.apply(definition)
    for plural in ("volumesnapshotclasses", "volumesnapshots", "volumesnapshotcontents"):
        until(lambda plural=plural: api.get(f"{volumes.SNAPSHOTS}/{plural}"), 30, errors=(Refused,))  # type: ignore[misc]
    items = ceph_csi_classes("ceph-block", "rbd", "csi-rbd-secret", {"clusterID": "fsid"}, "Retain", default=True)
    items += ceph_csi_classes("ceph-filesystem", "cephfs", "csi-cephfs-secret", {"clusterID": "fsid"}, "Retain")
    for _ in range(2):
        applied = [api.apply(item) for item in items]
    return applied


def test_classes_are_accepted_and_kept(classes: list[dict[str, Any]]) -> None:
    kinds = [(item["kind"], item["metadata"]["name"]) for item in classes]
    assert kinds == [
        (kind, name) for name in ("ceph-block", "ceph-filesystem") for kind in ("StorageClass", "VolumeSnapshotClass")
    ]
    assert classes[0]["parameters"]["csi.storage.k8s.io/node-stage-secret-name"] == "csi-rbd-secret"


@pytest.mark.usefixtures("classes")
def test_a_parameter_of_a_class_cannot_change(api: Administrator) -> None:
    other = ceph_csi_classes("ceph-block", "rbd", "csi-rbd-secret", {"clusterID": "another"}, "Retain", default=True)
    with pytest.raises(ValueError, match="parameters: Invalid value"):
        api.apply(other[0])


@pytest.mark.usefixtures("classes")
def test_the_objects_of_a_volume_are_accepted(api: Administrator, tmp_path: Path) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    api.create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
    api.merge("/api/v1/nodes/node-1/status", {"status": ready})
    for item in (volume_check.namespace(), volume_check.claim("first", "ceph-block")):
        api.apply(item)
    api.apply(volume_check.snapshot("saved", "ceph-block", "first"))
    api.apply(volume_check.claim("restored", "ceph-block", snapshot="saved"))
    config = tmp_path / "config.json"
    config.write_text(json.dumps([{"clusterID": "fsid"}]))
    api.create("/api/v1/namespaces", {"metadata": {"name": "ceph-csi-rbd"}})
    data = {"userID": "dXNlcg==", "userKey": "a2V5"}
    api.create("/api/v1/namespaces/ceph-csi-rbd/secrets", {"metadata": {"name": "csi-rbd-secret"}, "data": data})
    volumes.Driver(api, "rbd.csi.ceph.com", "node-1", tmp_path, config).reconcile()
    (volume,) = api.get(volumes.VOLUMES)["items"]
    assert volume["spec"]["claimRef"]["name"] == "first"
    assert volume["spec"]["hostPath"]["path"].startswith(str(tmp_path))
    api.call("DELETE", f"/api/v1/namespaces/{volume_check.NAMESPACE}")
