"""The installed kubectl, unmodified, with the simulated API."""

from __future__ import annotations

import json

import pytest

from .conftest import Cluster

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: kubectl}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: kubectl}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "web:1", env: [{name: A, value: "1"}]}
      - {name: side, image: "side:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: kubectl}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=MANIFEST)


def test_apply_twice_changes_nothing(cluster: Cluster) -> None:
    words = cluster.kubectl("apply", "-f", "-", stdin=MANIFEST).stdout.split()
    assert words.count("unchanged") == 3


def test_apply_removes_what_the_manifest_no_longer_has(cluster: Cluster) -> None:
    smaller = MANIFEST.replace('      - {name: side, image: "side:1"}\n', "").replace("web:1", "web:2")
    assert "deployment.apps/web configured" in cluster.kubectl("apply", "-f", "-", stdin=smaller).stdout
    found = json.loads(cluster.kubectl("-n", "kubectl", "get", "deployment", "web", "-o", "json").stdout)
    containers = found["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == ["web:2"]
    assert cluster.kubectl("diff", "-f", "-", stdin=smaller, check=False).returncode == 0


def test_server_side_apply(cluster: Cluster) -> None:
    done = cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST)
    assert done.stdout.count("serverside-applied") == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "configmap", "c1", "--from-literal=a=b"),
        ("create", "secret", "generic", "s1", "--from-literal=a=b"),
        ("create", "serviceaccount", "sa1"),
        ("create", "deployment", "d1", "--image=x", "--replicas=0", "--port=80"),
        ("create", "service", "clusterip", "svc1", "--tcp=80:80"),
        ("create", "job", "j1", "--image=x"),
        ("create", "cronjob", "cj1", "--image=x", "--schedule=0 * * * *"),
        ("create", "role", "r1", "--verb=get", "--resource=pods"),
        ("create", "rolebinding", "rb1", "--role=r1", "--user=u"),
        ("create", "poddisruptionbudget", "pdb1", "--selector=a=b", "--min-available=50%"),
        ("create", "quota", "q1", "--hard=pods=3"),
        ("run", "p1", "--image=x"),
        ("label", "configmap", "c1", "k=v"),
        ("annotate", "configmap", "c1", "k=v"),
        ("patch", "configmap", "c1", "-p", '{"data":{"c":"d"}}'),
        ("scale", "deployment/web", "--replicas=0"),
        ("set", "image", "deployment/web", "web=web:3"),
        ("rollout", "restart", "deployment/web"),
        ("rollout", "status", "deployment/web", "--timeout=20s"),
        ("describe", "deployment", "web"),
        ("get", "all,configmap,secret,pdb", "-o", "wide"),
        ("get", "deployment", "web", "-o", "yaml"),
        ("explain", "deployment.spec"),
        ("auth", "can-i", "create", "pods"),
        ("auth", "whoami"),
        ("api-resources",),
        ("api-versions",),
        ("cluster-info",),
        ("get", "events"),
        ("wait", "deployment/web", "--for=condition=Available", "--timeout=10s"),
        ("delete", "pod", "p1"),
        ("delete", "configmap", "-l", "k=v"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_commands_that_work(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    done = cluster.kubectl("-n", "kubectl", *arguments, check=False)
    assert done.returncode == 0, done.stderr


def test_created_objects_are_complete(cluster: Cluster) -> None:
    """Objects created by protobuf bodies have all their fields."""
    found = json.loads(cluster.kubectl("-n", "kubectl", "get", "pdb,deployment,job", "-o", "json").stdout)
    items = {item["metadata"]["name"]: item for item in found["items"]}
    assert items["pdb1"]["spec"] == {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}
    assert items["d1"]["spec"]["replicas"] == 0
    assert items["d1"]["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]


def test_nodes_table(cluster: Cluster) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "shown", "labels": {"node-role.kubernetes.io/etcd": "true"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.3+rke2r1"},
        },
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
    try:
        cluster.kubectl("cordon", "shown")
        row = cluster.kubectl("get", "node", "shown", "--no-headers").stdout.split()
        assert row[:3] == ["shown", "Ready,SchedulingDisabled", "etcd"]
        assert row[4] == "v1.36.3+rke2r1"
        cluster.kubectl("drain", "shown", "--ignore-daemonsets", "--timeout=10s")
        cluster.kubectl("uncordon", "shown")
    finally:
        cluster.kubectl("delete", "node", "shown")
