"""ceph-csi's drivers as a simulation: volumes of Kubernetes are folders of one node, not images of Ceph.

Claims, volumes, snapshots, expansion and deletion have the objects and fields of the real drivers, and a class works
only with the cluster's configuration and the Secret of a Ceph user that it names. Ceph itself gets no request: neither
keys nor rights are tried, there is no attachment, and quotas and encryption do not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.charts.client import Cluster, Refused

CONFIG = Path("/etc/ceph-csi-config/config.json")
POLL_SECONDS = 3.0
SIMULATION = {"slipway.dev/simulation": "true"}
PROVISIONED_BY, NODE = "pv.kubernetes.io/provisioned-by", "slipway.dev/node"
VOLUMES = "/api/v1/persistentvolumes"
STORAGE, SNAPSHOTS = "/apis/storage.k8s.io/v1", "/apis/snapshot.storage.k8s.io/v1"
SECRET_NAME = "csi.storage.k8s.io/provisioner-secret-name"
SECRET_NAMESPACE = "csi.storage.k8s.io/provisioner-secret-namespace"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
Item = Mapping[str, Any]


class Unable(Exception):
    """Why a volume cannot be made yet."""


def size_bytes(text: str) -> int:
    number, unit = (text[:-2], UNITS[text[-2:]]) if text[-2:] in UNITS else (text, 1)
    return int(number) * unit


def chosen_node(uid: str, nodes: list[str]) -> str:
    """The node of a new volume: the same one in the view of every node."""
    return max(nodes, key=lambda name: hashlib.sha256(f"{uid} {name}".encode()).digest())


def ready_nodes(items: Iterable[Item]) -> list[str]:
    return sorted(
        item["metadata"]["name"]
        for item in items
        if any(entry["type"] == "Ready" and entry["status"] == "True" for entry in item["status"]["conditions"])
    )


def key_of(item: Item) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def annotation(item: Item, name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name, ""))


class Driver:
    """The volumes of one node."""

    def __init__(self, cluster: Cluster, name: str, node: str, root: Path, config: Path = CONFIG) -> None:
        self.cluster, self.name, self.node, self.root, self.config = cluster, name, node, root, config
        self.logged: dict[str, str] = {}

    def items(self, path: str) -> list[dict[str, Any]]:
        return list((self.cluster.get(path) or {"items": []})["items"])

    def reconcile(self) -> None:
        classes = {
            item["metadata"]["name"]: item
            for item in self.items(f"{STORAGE}/storageclasses")
            if item["provisioner"] == self.name
        }
        own = [item for item in self.items(VOLUMES) if annotation(item, PROVISIONED_BY) == self.name]
        claims = [
            item
            for item in self.items("/api/v1/persistentvolumeclaims")
            if item["spec"].get("storageClassName") in classes
        ]
        here = {item["metadata"]["name"]: item for item in own if annotation(item, NODE) == self.node}
        bound = {item["spec"].get("volumeName"): item for item in claims}
        for claim in claims:
            if not claim["spec"].get("volumeName") and not claim["metadata"].get("deletionTimestamp"):
                self.each(claim, self.provision, claim, classes[claim["spec"]["storageClassName"]])
        for name, volume in here.items():
            released = volume["status"].get("phase") == "Released"
            if released and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                self.each(volume, self.delete, VOLUMES, name)
            elif name in bound:
                self.each(volume, self.expand, volume, bound[name])
        self.reconcile_snapshots({key_of(item): item for item in claims}, here)

    def each(self, item: Item, work: Callable[..., None], *arguments: Any) -> None:
        """One step; a failure concerns its object only, and is logged when it changes."""
        name = item["metadata"]["name"]
        try:
            work(*arguments)
        except (Unable, Refused, OSError) as error:
            if self.logged.get(name) != str(error):
                self.logged[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)

    def provision(self, claim: Item, storage_class: Item) -> None:
        uid = claim["metadata"]["uid"]
        name = f"pvc-{uid}"
        source = claim["spec"].get("dataSource") or {}
        content = self.snapshot_content(claim["metadata"]["namespace"], source) if source else None
        node = annotation(content, NODE) if content else chosen_node(uid, ready_nodes(self.items("/api/v1/nodes")))
        if node != self.node:
            return
        self.require_credentials(storage_class["parameters"])
        folder = self.root / "volumes" / name
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            if content:
                shutil.copytree(self.root / "snapshots" / content["metadata"]["name"], fresh)
            else:
                fresh.mkdir(parents=True)
            fresh.chmod(0o777)  # in place of fsGroup, which a folder of the host does not get
            fresh.rename(folder)
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": uid}
        reference |= {key: claim["metadata"][key] for key in ("name", "namespace")}
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        self.cluster.create(VOLUMES, {
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": SIMULATION, "annotations": {PROVISIONED_BY: self.name, NODE: node}},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"], "claimRef": reference,
                "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
                "storageClassName": storage_class["metadata"]["name"],
                "hostPath": {"path": str(folder), "type": "Directory"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        })  # fmt: skip

    def require_credentials(self, parameters: Mapping[str, str]) -> None:
        """The configuration and the Secret without which the real driver makes no volume."""
        clusters = [entry["clusterID"] for entry in json.loads(self.config.read_text())]
        if parameters.get("clusterID") not in clusters:
            raise Unable(f"clusterID {parameters.get('clusterID')} is not one of the configuration's")
        namespace, name = parameters.get(SECRET_NAMESPACE, ""), parameters.get(SECRET_NAME, "")
        secret = self.cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{name}") or {}
        missing = [key for key in ("userID", "userKey") if not (secret.get("data") or {}).get(key)]
        if missing:
            raise Unable(f"Secret {namespace}/{name} has no {' and no '.join(missing)}")

    def expand(self, volume: Item, claim: Item) -> None:
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        if size_bytes(wanted) <= size_bytes(volume["spec"]["capacity"]["storage"]):
            return
        path = f"/api/v1/namespaces/{claim['metadata']['namespace']}/persistentvolumeclaims/{claim['metadata']['name']}"
        self.cluster.merge(f"{VOLUMES}/{volume['metadata']['name']}", {"spec": {"capacity": {"storage": wanted}}})
        self.cluster.merge(f"{path}/status", {"status": {"capacity": {"storage": wanted}}})

    def delete(self, path: str, name: str) -> None:
        kind = "volumes" if path == VOLUMES else "snapshots"
        shutil.rmtree(self.root / kind / name, ignore_errors=True)
        self.cluster.call("DELETE", f"{path}/{name}")

    def reconcile_snapshots(self, claims: Mapping[tuple[str, str], Item], here: Mapping[str, Item]) -> None:
        classes = {
            item["metadata"]["name"]: item
            for item in self.items(f"{SNAPSHOTS}/volumesnapshotclasses")
            if item["driver"] == self.name
        }
        wanted = [
            item
            for item in self.items(f"{SNAPSHOTS}/volumesnapshots")
            if item["spec"].get("volumeSnapshotClassName") in classes
        ]
        for snapshot in wanted:
            source = snapshot["spec"]["source"].get("persistentVolumeClaimName", "")
            claim = claims.get((snapshot["metadata"]["namespace"], source))
            volume = here.get(claim["spec"].get("volumeName", "")) if claim else None
            if volume and not (snapshot.get("status") or {}).get("readyToUse"):
                self.each(snapshot, self.save, snapshot, volume, classes[snapshot["spec"]["volumeSnapshotClassName"]])
        names = {f"snapcontent-{item['metadata']['uid']}" for item in wanted}
        path = f"{SNAPSHOTS}/volumesnapshotcontents"
        for content in self.items(path):
            name, spec = content["metadata"]["name"], content["spec"]
            own = annotation(content, NODE) == self.node and spec["driver"] == self.name
            if own and name not in names and spec["deletionPolicy"] == "Delete":
                self.each(content, self.delete, path, name)

    def save(self, snapshot: Item, volume: Item, snapshot_class: Item) -> None:
        name = f"snapcontent-{snapshot['metadata']['uid']}"
        folder = self.root / "snapshots" / name
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(self.root / "volumes" / volume["metadata"]["name"], fresh)
            fresh.rename(folder)
        reference = {key: snapshot["metadata"][key] for key in ("name", "namespace", "uid")}
        self.cluster.create(f"{SNAPSHOTS}/volumesnapshotcontents", {
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": name, "labels": SIMULATION, "annotations": {NODE: self.node}},
            "spec": {"driver": self.name, "deletionPolicy": snapshot_class["deletionPolicy"],
                     "volumeSnapshotRef": reference, "source": {"volumeHandle": volume["metadata"]["name"]}},
        })  # fmt: skip
        space, own = snapshot["metadata"]["namespace"], snapshot["metadata"]["name"]
        self.cluster.merge(
            f"{SNAPSHOTS}/namespaces/{space}/volumesnapshots/{own}/status",
            {"status": {"readyToUse": True, "boundVolumeSnapshotContentName": name}},
        )

    def snapshot_content(self, namespace: str, source: Item) -> Item:
        """The content that a claim is restored from."""
        snapshot = self.cluster.get(f"{SNAPSHOTS}/namespaces/{namespace}/volumesnapshots/{source['name']}") or {}
        name = (snapshot.get("status") or {}).get("boundVolumeSnapshotContentName")
        content = self.cluster.get(f"{SNAPSHOTS}/volumesnapshotcontents/{name}") if name else None
        if content is None:
            raise Unable(f"snapshot {namespace}/{source['name']} is not ready")
        return dict(content)


def main() -> None:
    """The plugin of a node, or the controller, whose work the plugins do here."""
    name = os.environ["DRIVER_NAME"]
    print(f"{name}: a simulation, volumes are folders of a node", file=sys.stderr)
    if sys.argv[1:] == ["controller"]:
        while True:
            time.sleep(3600)
    driver = Driver(Cluster(), name, os.environ["NODE_NAME"], Path("/var/lib/ceph-csi-simulation") / name)
    while True:
        try:
            driver.reconcile()
        except (OSError, Refused) as error:
            print(f"{name}: {error}", file=sys.stderr)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
