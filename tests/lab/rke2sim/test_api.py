"""The API with a real etcd, through the official Python client and plain requests."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

from .conftest import Cluster


@pytest.fixture(scope="module")
def core(cluster: Cluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))


@pytest.fixture
def namespace(core: client.CoreV1Api, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "t-" + request.node.name.partition("[")[0].replace("_", "-").removeprefix("test-")[:50].strip("-")
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def http(cluster: Cluster, method: str, path: str, user: str = "admin", **arguments: Any) -> requests.Response:
    folder = cluster.folder
    pair = (str(folder / f"{user}.crt"), str(folder / f"{user}.key")) if user else None
    return requests.request(
        method, cluster.url + path, cert=pair, verify=str(folder / "server-ca.crt"), timeout=30, **arguments
    )


def eventually(check: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def code(fault: pytest.ExceptionInfo[ApiException]) -> int:
    return int(fault.value.status)


def test_requests_without_a_certificate_are_unauthorized(cluster: Cluster) -> None:
    answer = http(cluster, "GET", "/readyz", user="")
    assert answer.status_code == 401
    assert answer.json()["kind"] == "Status"
    assert answer.json()["reason"] == "Unauthorized"
    assert http(cluster, "GET", "/api/v1/nodes", user="guest").status_code == 403


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health(cluster: Cluster, path: str) -> None:
    assert http(cluster, "GET", path).text == "ok"
    assert "[+]etcd ok" in http(cluster, "GET", f"{path}?verbose").text


def test_the_version_is_marked_as_a_simulation(cluster: Cluster) -> None:
    version = http(cluster, "GET", "/version").json()
    assert version["gitVersion"] == "v1.36.3+rke2r1"
    assert version["gitCommit"] == "simulation"


def test_unknown_paths_are_not_found(cluster: Cluster) -> None:
    for path in ("/nothing", "/api/v1/nothing", "/apis/no.group/v1", "/apis/apps/v7/deployments"):
        answer = http(cluster, "GET", path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


def test_subresources_that_need_containers_are_not_supported(cluster: Cluster) -> None:
    answer = http(cluster, "GET", "/api/v1/namespaces/default/pods/x/log")
    assert answer.status_code == 501
    assert "the simulation of RKE2 does not support pods/log" in answer.json()["message"]


def test_create_read_update_delete(core: client.CoreV1Api, namespace: str) -> None:
    created = core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    assert created.metadata.uid
    with pytest.raises(ApiException) as fault:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}})
    assert code(fault) == 409
    created.data["x"] = "2"
    updated = core.replace_namespaced_config_map("a", namespace, created)
    assert updated.metadata.resource_version != created.metadata.resource_version
    with pytest.raises(ApiException) as fault:
        core.replace_namespaced_config_map("a", namespace, created)
    assert code(fault) == 409
    core.delete_namespaced_config_map("a", namespace)
    with pytest.raises(ApiException) as fault:
        core.read_namespaced_config_map("a", namespace)
    assert code(fault) == 404


def test_an_update_that_changes_nothing_writes_nothing(core: client.CoreV1Api, namespace: str) -> None:
    first = core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    again = core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
    assert again.metadata.resource_version == first.metadata.resource_version


def test_names_and_namespaces_are_checked(core: client.CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as fault:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "Upper"}})
    assert code(fault) == 422
    with pytest.raises(ApiException) as fault:
        core.create_namespaced_config_map("not-there", {"metadata": {"name": "a"}})
    assert code(fault) == 404
    named = core.create_namespaced_config_map(namespace, {"metadata": {"generateName": "gen-"}})
    assert named.metadata.name.startswith("gen-")


def test_secrets_are_not_readable_in_etcd(cluster: Cluster, core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_secret(namespace, {"metadata": {"name": "s"}, "stringData": {"p": "very-secret-word"}})
    found = cluster.run(cluster.etcd.get(f"/registry/core/secrets/{namespace}/s"))
    assert found.value.startswith(b"k8s:enc:aescbc:v1:")
    assert b"very-secret-word" not in found.value
    assert base64.b64encode(b"very-secret-word") not in found.value
    assert base64.b64decode(core.read_namespaced_secret("s", namespace).data["p"]) == b"very-secret-word"
    core.patch_namespaced_secret("s", namespace, {"stringData": {"p": "another"}})
    assert base64.b64decode(core.read_namespaced_secret("s", namespace).data["p"]) == b"another"


def test_pages_and_selectors(core: client.CoreV1Api, namespace: str) -> None:
    for number in range(7):
        labels = {"parity": "odd" if number % 2 else "even"}
        core.create_namespaced_config_map(namespace, {"metadata": {"name": f"c{number}", "labels": labels}})
    first = core.list_namespaced_config_map(namespace, limit=3)
    assert [item.metadata.name for item in first.items] == ["c0", "c1", "c2"]
    assert first.metadata.remaining_item_count == 4
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c3-later"}})
    second = core.list_namespaced_config_map(namespace, limit=9, _continue=first.metadata._continue)
    assert [item.metadata.name for item in second.items] == ["c3", "c4", "c5", "c6"], (
        "a page is of the first page's revision"
    )
    odd = core.list_namespaced_config_map(namespace, label_selector="parity in (odd)")
    assert len(odd.items) == 3
    named = core.list_namespaced_config_map(namespace, field_selector="metadata.name=c4")
    assert [item.metadata.name for item in named.items] == ["c4"]


def test_watch_starts_at_a_version(core: client.CoreV1Api, namespace: str) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version

    def change() -> None:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "a", "labels": {"k": "v"}}})
        core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
        core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"k": None}}})

    thread = threading.Thread(target=change)
    thread.start()
    seen = [
        event["type"]
        for event in watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version=start, label_selector="k=v", timeout_seconds=3
        )
    ]
    thread.join()
    assert seen == ["ADDED", "MODIFIED", "DELETED"], "an object that no longer matches is reported as deleted"


def test_a_compacted_version_is_gone(cluster: Cluster) -> None:
    floor = cluster.store.floor
    cluster.store.floor = 1000000
    try:
        answer = http(cluster, "GET", "/api/v1/configmaps?watch=true&resourceVersion=5&timeoutSeconds=1")
    finally:
        cluster.store.floor = floor
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


def test_bookmark_ends_the_initial_events(cluster: Cluster) -> None:
    path = "/api/v1/namespaces?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1"
    lines = [line for line in http(cluster, "GET", path).text.splitlines() if line]
    assert '"type":"ADDED"' in lines[0]
    assert any("k8s.io/initial-events-end" in line for line in lines)


def test_patch_kinds(cluster: Cluster, core: client.CoreV1Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/a"
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    for kind, body in (
        ("application/merge-patch+json", '{"data":{"y":"2"}}'),
        ("application/strategic-merge-patch+json", '{"data":{"z":"3"}}'),
        ("application/json-patch+json", '[{"op":"remove","path":"/data/x"}]'),
    ):
        assert http(cluster, "PATCH", path, data=body, headers={"Content-Type": kind}).status_code == 200
    assert core.read_namespaced_config_map("a", namespace).data == {"y": "2", "z": "3"}
    stale = '{"metadata":{"resourceVersion":"1"},"data":{"q":"1"}}'
    headers = {"Content-Type": "application/merge-patch+json"}
    assert http(cluster, "PATCH", path, data=stale, headers=headers).status_code == 409
    assert http(cluster, "PATCH", path, data="{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_server_side_apply(cluster: Cluster, core: client.CoreV1Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/a?fieldManager=tester"
    headers = {"Content-Type": "application/apply-patch+yaml"}

    def apply(data: str) -> requests.Response:
        body = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {data}\n"
        return http(cluster, "PATCH", path, data=body, headers=headers)

    assert apply("{x: '1', y: '2'}").status_code == 201
    core.patch_namespaced_config_map("a", namespace, {"data": {"other": "3"}})
    answer = apply("{x: '1'}")
    assert answer.status_code == 200
    assert answer.json()["data"] == {"x": "1", "other": "3"}, "only the manager's fields are removed"
    version = answer.json()["metadata"]["resourceVersion"]
    assert apply("{x: '1'}").json()["metadata"]["resourceVersion"] == version, "applying the same again writes nothing"
    missing = http(cluster, "PATCH", path.partition("?")[0], data="{}", headers=headers)
    assert missing.status_code == 422


def test_dry_run_writes_nothing(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}}, dry_run="All")
    assert core.list_namespaced_config_map(namespace).items == []
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}})
    core.delete_namespaced_config_map("a", namespace, dry_run="All")
    core.delete_namespaced_config_map("a", namespace, body={"dryRun": ["All"]})
    core.delete_collection_namespaced_config_map(namespace, body={"dryRun": ["All"]})
    assert len(core.list_namespaced_config_map(namespace).items) == 1


def test_finalizers_delay_a_deletion(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a", "finalizers": ["x.test/hold"]}})
    core.delete_namespaced_config_map("a", namespace)
    assert core.read_namespaced_config_map("a", namespace).metadata.deletion_timestamp
    core.patch_namespaced_config_map("a", namespace, [{"op": "remove", "path": "/metadata/finalizers"}])
    with pytest.raises(ApiException) as fault:
        core.read_namespaced_config_map("a", namespace)
    assert code(fault) == 404


def test_a_namespace_is_deleted_with_its_contents(core: client.CoreV1Api) -> None:
    core.create_namespace({"metadata": {"name": "short-lived"}})
    core.create_namespaced_config_map("short-lived", {"metadata": {"name": "a"}})
    core.delete_namespace("short-lived")
    assert "short-lived" not in [item.metadata.name for item in core.list_namespace().items]
    core.create_namespace({"metadata": {"name": "short-lived"}})
    assert core.list_namespaced_config_map("short-lived").items == []
    core.delete_namespace("short-lived")
    with pytest.raises(ApiException) as fault:
        core.delete_namespace("kube-system")
    assert code(fault) == 403


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.test.slipway.dev"},
    "spec": {
        "group": "test.slipway.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }
        ],
    },
}


@pytest.fixture
def widgets(cluster: Cluster) -> Iterator[Any]:
    api = config.new_client_from_config(str(cluster.kubeconfig))
    definitions = client.ApiextensionsV1Api(api)
    definitions.create_custom_resource_definition(CRD)
    eventually(lambda: cluster.api.catalogue.find("test.slipway.dev", "v1", "widgets"))
    yield dynamic.DynamicClient(api).resources.get(api_version="test.slipway.dev/v1", kind="Widget")
    definitions.delete_custom_resource_definition("widgets.test.slipway.dev")


def test_custom_resources(cluster: Cluster, widgets: Any, namespace: str) -> None:
    body = {"apiVersion": "test.slipway.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    created = widgets.create(body=body, namespace=namespace)
    assert created.metadata.generation == 1
    changed = widgets.patch(
        body={"spec": {"size": 4}, "status": {"x": 1}}, name="w", namespace=namespace,
        content_type="application/merge-patch+json",
    )  # fmt: skip
    assert changed.metadata.generation == 2
    assert changed.status is None, "status is only written through its subresource"
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    path = f"/apis/test.slipway.dev/v1/namespaces/{namespace}/widgets"
    table = http(cluster, "GET", path, headers=headers).json()
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["w", 4]


def a_node(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        },
    }


@pytest.fixture
def node(core: client.CoreV1Api) -> Iterator[str]:
    core.create_node(a_node("n1"))
    yield "n1"
    core.delete_node("n1")


def running(core: client.CoreV1Api, namespace: str) -> list[str]:
    pods = core.list_namespaced_pod(namespace).items
    return sorted(pod.metadata.name for pod in pods if pod.status.phase == "Running")


def deployment(replicas: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    }


def test_deployments_create_pods_and_budgets_limit_evictions(
    cluster: Cluster, core: client.CoreV1Api, namespace: str, node: str
) -> None:
    api = config.new_client_from_config(str(cluster.kubeconfig))
    apps, policy = client.AppsV1Api(api), client.PolicyV1Api(api)
    apps.create_namespaced_deployment(namespace, deployment(2))
    eventually(lambda: len(running(core, namespace)) == 2)
    eventually(lambda: apps.read_namespaced_deployment("web", namespace).status.ready_replicas == 2)
    budget = {"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}
    policy.create_namespaced_pod_disruption_budget(namespace, budget)
    pod = running(core, namespace)[0]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    with pytest.raises(ApiException) as fault:
        core.create_namespaced_pod_eviction(pod, namespace, eviction)
    assert code(fault) == 429
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    eventually(lambda: len(running(core, namespace)) == 3)
    core.create_namespaced_pod_eviction(pod, namespace, eviction)
    eventually(lambda: pod not in running(core, namespace) and len(running(core, namespace)) == 3)
    apps.delete_namespaced_deployment("web", namespace)
    eventually(lambda: not core.list_namespaced_pod(namespace).items)


def test_cordoned_nodes_get_no_pods(cluster: Cluster, core: client.CoreV1Api, namespace: str, node: str) -> None:
    core.patch_node(node, {"spec": {"unschedulable": True}})
    eventually(lambda: core.read_node(node).spec.taints)
    apps = client.AppsV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    apps.create_namespaced_deployment(namespace, deployment(1))
    pod = eventually(lambda: core.list_namespaced_pod(namespace).items)[0]
    assert pod.status.phase == "Pending"
    core.patch_node(node, {"spec": {"unschedulable": None}})
    eventually(lambda: running(core, namespace))
    assert not core.read_node(node).spec.taints


def test_daemon_sets_have_one_pod_per_node(cluster: Cluster, core: client.CoreV1Api, namespace: str, node: str) -> None:
    apps = client.AppsV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    body = deployment(1)
    del body["spec"]["replicas"]
    apps.create_namespaced_daemon_set(namespace, body)
    eventually(lambda: len(running(core, namespace)) == 1)
    core.create_node(a_node("n2"))
    eventually(lambda: len(running(core, namespace)) == 2)
    core.delete_node("n2")
    eventually(lambda: len(running(core, namespace)) == 1)


def test_two_writers_never_lose_an_update(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {}})

    def write(word: str) -> None:
        for number in range(10):
            core.patch_namespaced_config_map("a", namespace, {"data": {f"{word}{number}": "1"}})

    threads = [threading.Thread(target=write, args=(word,)) for word in "pq"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(core.read_namespaced_config_map("a", namespace).data) == 20


def test_openapi_contains_every_kind(cluster: Cluster) -> None:
    index = http(cluster, "GET", "/openapi/v3").json()["paths"]
    document = http(cluster, "GET", index["apis/apps/v1"]["serverRelativeURL"]).json()
    kinds = [
        schema["x-kubernetes-group-version-kind"][0]["kind"] for schema in document["components"]["schemas"].values()
    ]
    assert "Deployment" in kinds
