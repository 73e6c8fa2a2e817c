"""The classes of ceph-csi in the cluster: the default, credentials, monitors; and that checks leave nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.inventory import Inventory

KUBECTL = "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml"
DRIVERS = {"ceph-block": "rbd", "ceph-filesystem": "cephfs"}


@pytest.fixture
def server(inventory: Inventory) -> Host:
    return inventory.host(inventory.group("rke2_server")[0])


def read(host: Host, command: str) -> Any:
    with host.sudo():
        return json.loads(host.check_output(f"{KUBECTL} {command} --output json"))


def named(host: Host, kind: str) -> dict[str, Any]:
    return {item["metadata"]["name"]: item for item in read(host, f"get {kind}")["items"]}


def test_one_class_is_the_default(server: Host) -> None:
    annotation = "storageclass.kubernetes.io/is-default-class"
    classes = named(server, "storageclasses")
    assert set(DRIVERS) <= set(classes)
    marks = {name: item["metadata"].get("annotations", {}).get(annotation) for name, item in classes.items()}
    assert [name for name, mark in marks.items() if mark == "true"] == ["ceph-block"]


@pytest.mark.parametrize(("name", "driver"), DRIVERS.items())
def test_a_class_uses_the_credentials_of_its_own_driver(server: Host, name: str, driver: str) -> None:
    storage_class = named(server, "storageclasses")[name]
    assert storage_class["provisioner"] == f"{driver}.csi.ceph.com"
    assert storage_class["allowVolumeExpansion"] is True
    parameters = storage_class["parameters"]
    secrets = {parameters[key] for key in parameters if key.endswith("secret-name")}
    namespaces = {parameters[key] for key in parameters if key.endswith("secret-namespace")}
    assert (secrets, namespaces) == ({f"csi-{driver}-secret"}, {f"ceph-csi-{driver}"})
    secret = read(server, f"--namespace ceph-csi-{driver} get secret csi-{driver}-secret")
    assert {"userID", "userKey"} <= set(secret["data"])


@pytest.mark.parametrize(("name", "driver"), DRIVERS.items())
def test_snapshots_have_a_class_too(server: Host, name: str, driver: str) -> None:
    snapshot_class = named(server, "volumesnapshotclasses.snapshot.storage.k8s.io")[name]
    assert snapshot_class["driver"] == f"{driver}.csi.ceph.com"
    assert snapshot_class["metadata"]["labels"]["velero.io/csi-volumesnapshot-class"] == "true"


@pytest.mark.parametrize("driver", DRIVERS.values())
def test_the_monitors_are_reached_by_msgr2(server: Host, driver: str) -> None:
    config = read(server, f"--namespace ceph-csi-{driver} get configmap ceph-csi-config")["data"]["config.json"]
    (cluster,) = json.loads(config)
    assert cluster["monitors"]
    assert all(monitor.endswith(":3300") for monitor in cluster["monitors"])


def test_a_check_leaves_nothing(server: Host) -> None:
    assert "slipway-volume-check" not in named(server, "namespaces")
    for kind in ("persistentvolumes", "volumesnapshotcontents.snapshot.storage.k8s.io"):
        assert [name for name, item in named(server, kind).items() if "slipway-volume-check" in json.dumps(item)] == []
