"""What the simulated RKE2 does in the cluster, against a real API server: manifests, node passwords, deleted nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.rke2sim.runtime.addons import Addons
from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.controllers import NODE_FINALIZER, Nodes
from lab.rke2sim.runtime.layout import Layout
from lab.rke2sim.runtime.packaged import NAMES, write_manifests
from lab.rke2sim.runtime.supervisor import NodePasswords

from .conftest import Cluster
from .test_node import RELEASE

SYSTEM = "/api/v1/namespaces/kube-system"
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME, namespace: kube-system}
data: {a: VALUE}
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.manifests.mkdir(parents=True)
    return layout


def manifest(layout: Layout, file: str, *names: str, value: str = "x") -> None:
    texts = [MANIFEST.replace("NAME", name).replace("VALUE", value) for name in names]
    (layout.manifests / f"{file}.yaml").write_text("---".join(texts))


def value(cluster: Cluster, name: str) -> Any:
    found = cluster.get(f"{SYSTEM}/configmaps/{name}")
    return found and found["data"]["a"]


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_manifest_is_applied_and_again_when_it_changes(cluster: Cluster, layout: Layout) -> None:
    addons = Addons(Config("server", {}), layout, cluster.api)
    for text in ("one", "three"):
        manifest(layout, "first", "first", value=text)
        cluster.run(addons._scan())
        assert value(cluster, "first") == text


def test_objects_that_left_a_manifest_are_deleted(cluster: Cluster, layout: Layout) -> None:
    addons = Addons(Config("server", {}), layout, cluster.api)
    manifest(layout, "pair", "stays", "leaves")
    cluster.run(addons._scan())
    manifest(layout, "pair", "stays")
    cluster.run(addons._scan())
    assert (value(cluster, "stays"), value(cluster, "leaves")) == ("x", None)


def test_an_unknown_kind_is_tried_again_and_an_invalid_object_is_not(
    cluster: Cluster, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    addons = Addons(Config("server", {}), layout, cluster.api)
    (layout.manifests / "early.yaml").write_text("{apiVersion: test/v1, kind: Early, metadata: {name: a}}")
    (layout.manifests / "wrong.yaml").write_text(MANIFEST.replace("NAME", "Not_A_Name"))
    for _ in range(2):
        cluster.run(addons._scan())
    logged = capsys.readouterr().err
    assert logged.count("no resource serves test/v1 Early") == 2
    assert logged.count("wrong.yaml: ") == 1


def test_the_packaged_components_are_valid_objects(cluster: Cluster, layout: Layout) -> None:
    write_manifests(Config("server", {}), layout, RELEASE)
    cluster.run(Addons(Config("server", {}), layout, cluster.api)._scan())
    applied = cluster.get("/apis/k3s.cattle.io/v1/namespaces/kube-system/addons")["items"]
    assert set(NAMES) <= {item["metadata"]["name"] for item in applied}
    assert cluster.get(f"{SYSTEM}/services/rke2-coredns-rke2-coredns")["spec"]["clusterIP"] == "10.43.0.10"


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_the_first_password_is_the_nodes(cluster: Cluster) -> None:
    passwords = NodePasswords(cluster.api)
    assert cluster.run(passwords.ensure("node-1", "one"))
    assert cluster.run(passwords.ensure("node-1", "one"))
    assert not cluster.run(passwords.ensure("node-1", "two"))
    cluster.run(passwords.remove("node-1"))
    assert cluster.run(passwords.ensure("node-1", "two"))


class Members:
    """A test double of etcd's list of members."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    async def members(self) -> list[dict[str, Any]]:
        return [{"name": name, "ID": name} for name in self.names]

    async def remove(self, member: str) -> None:
        self.names.remove(member)


def test_a_deleted_node_takes_its_password_and_its_member_along(cluster: Cluster, layout: Layout) -> None:
    layout.etcd_dir.mkdir(parents=True)
    layout.etcd_name.write_text("server-1-0a0b0c0d")
    etcd = Members("server-1-0a0b0c0d", "server-2-0a0b0c0d")
    nodes = Nodes(
        Config("server", {}), layout, "server-1", ["10.0.0.1"], cluster.api, etcd, lambda: True,  # type: ignore[arg-type]
    )  # fmt: skip

    def reconcile() -> None:
        for node in cluster.run(nodes._list()):
            cluster.run(nodes._reconcile(node))

    for name in ("server-1", "server-2"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        cluster.run(cluster.api.call("POST", "/api/v1/nodes", node))
    cluster.run(NodePasswords(cluster.api).ensure("server-2", "secret"))
    reconcile()
    own = cluster.get("/api/v1/nodes/server-1")
    assert own["metadata"]["labels"]["node-role.kubernetes.io/etcd"] == "true"
    assert own["metadata"]["annotations"]["etcd.rke2.cattle.io/node-name"] == "server-1-0a0b0c0d"
    voter = {entry["type"]: entry["status"] for entry in own["status"]["conditions"]}["EtcdIsVoter"]
    assert voter == "True"
    assert cluster.get("/api/v1/nodes/server-2")["metadata"]["finalizers"] == [NODE_FINALIZER]
    cluster.run(cluster.api.call("DELETE", "/api/v1/nodes/server-2"))
    reconcile()
    assert cluster.get("/api/v1/nodes/server-2") is None
    assert etcd.names == ["server-1-0a0b0c0d"]
    assert cluster.run(NodePasswords(cluster.api).ensure("server-2", "another"))
