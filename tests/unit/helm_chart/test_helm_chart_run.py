"""A run of the chart's module against an API in memory that behaves as helm-controller and helm do."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import helm_chart_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils import helm_chart_run as run
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import (
    ApiError,
    KubernetesApi,
    UnknownKind,
)

Json = dict[str, Any]
KINDS = {"Namespace": ("namespaces", False), "Secret": ("secrets", True), "ConfigMap": ("configmaps", True),
         "HelmChart": ("helmcharts", True), "Widget": ("widgets", True),
         "StorageClass": ("storageclasses", False)}  # fmt: skip
PERMANENT = "Error: UPGRADE FAILED: YAML parse error on web/templates/x.yaml"


class Cluster(KubernetesApi):
    """Objects by path; `outcome` decides how the job of a HelmChart ends."""

    def __init__(self, outcome: Callable[[Json], str] = lambda chart: "Complete", log: str = "") -> None:
        super().__init__()
        self.objects: dict[str, Json] = {}
        self.outcome, self.log = outcome, log
        self.applied: list[str] = []
        self.deleted: list[str] = []

    def path(self, manifest: Any) -> str:
        if manifest["kind"] not in KINDS:
            raise UnknownKind("unknown")
        plural, namespaced = KINDS[manifest["kind"]]
        version = manifest["apiVersion"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        metadata = manifest["metadata"]
        folder = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{base}{folder}/{plural}/{metadata['name']}"

    def get(self, path: str) -> Json | None:
        path, _, query = path.partition("?")
        if path in self.objects:
            return self.objects[path]
        listed = [item for name, item in self.objects.items() if name.rpartition("/")[0] == path]
        if path.endswith("/secrets") and (match := re.search(r"name=([\w-]+)", unquote(query))):
            listed = [item for item in listed if item["metadata"].get("labels", {}).get("name") == match[1]]
        return {"items": listed} if "/secrets/" not in path and re.search(r"s$", path) else None

    def text(self, path: str) -> str:
        return self.log

    def apply(self, manifest: Any) -> Json:
        item: Json = json.loads(json.dumps(manifest))
        self.applied.append(f"{item['kind']} {item['metadata']['name']}")
        self.objects[self.path(item)] = item
        if item["kind"] == "HelmChart":
            self.install(item)
        return item

    def delete(self, manifest: Any) -> None:
        self.deleted.append(f"{manifest['kind']} {manifest['metadata']['name']}")
        del self.objects[self.path(manifest)]

    def install(self, chart: Json) -> None:
        name, spec = chart["metadata"]["name"], chart["spec"]
        keys = ["HelmChartValuesContent", *(key for entry in spec.get("valuesSecrets", []) for key in entry["keys"])]
        items = [{"key": key, "path": key} for key in keys]
        pod = {
            "containers": [
                {"env": [{"name": "VERSION", "value": spec["version"]}, {"name": "REPO", "value": spec["repo"]}]}
            ],
            "volumes": [{"name": "values", "projected": {"sources": [{"secret": {"items": items}}]}}],
        }
        outcome = self.outcome(chart)
        template = {"metadata": {"annotations": {plan.HASH: "SHA256=" + plan.digest(spec)}}, "spec": pod}
        conditions = [{"type": outcome, "status": "True"}] if outcome else []
        self.objects[f"/apis/batch/v1/namespaces/kube-system/jobs/helm-install-{name}"] = {
            "spec": {"template": template}, "status": {"conditions": conditions},
        }  # fmt: skip
        values = plan.secret("x", "kube-system", {"HelmChartValuesContent": spec["valuesContent"]})
        self.objects[f"/api/v1/namespaces/kube-system/secrets/chart-values-{name}"] = values
        pods = "/api/v1/namespaces/kube-system/pods"
        status = {"name": "helm", "restartCount": 2, "ready": False, "state": {"running": {}}}
        self.objects[f"{pods}/helm-install-{name}-x"] = {
            "metadata": {"name": f"helm-install-{name}-x", "namespace": "kube-system", "uid": plan.digest(spec)},
            "status": {"containerStatuses": [status]},
        }
        release = f"/api/v1/namespaces/{spec['targetNamespace']}/secrets/sh.helm.release.v1.{name}"
        revision = sum(path.startswith(release) for path in self.objects) + 1
        content = {"chart": {"metadata": {"version": spec["version"]}}}
        labels = {"name": name, "owner": "helm", "version": str(revision), plan.HASH: plan.digest(spec)[:63],
                  "status": "deployed" if outcome == "Complete" else "failed"}  # fmt: skip
        self.objects[f"{release}.v{revision}"] = {
            "metadata": {"name": f"v{revision}", "labels": labels},
            "data": {"release": base64.b64encode(base64.b64encode(packed(content))).decode()},
        }


def packed(content: Json) -> bytes:
    return gzip.compress(json.dumps(content).encode())


def declared(**changes: Any) -> run.Declared:
    chart = {"name": "web", "target_namespace": "web", "chart": "web", "version": "1.0.0",
             "repo": "https://charts.example.com", "values": {"replicas": 1}}  # fmt: skip
    of_chart = {key: changes.pop(key) for key in list(changes) if key in chart}
    return run.Declared(plan.Chart(**{**chart, **of_chart}), **changes)


def converge(api: Cluster, wanted: run.Declared) -> run.Runner:
    runner = run.Runner(api, wanted)
    runner.read()
    runner.converge()
    return runner


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "POLL_SECONDS", 0.0)


def test_everything_is_created_once_and_in_order() -> None:
    api = Cluster()
    secret = {"name": "key", "namespace": "", "type": "Opaque", "data": {"a": "b"}}
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}, "data": {"x": "y"}}
    wanted = declared(secrets=[secret], secret_values={"p": "q"}, objects_before=[note], objects=[widget])
    assert len(converge(api, wanted).changes) == 6
    assert api.applied == [
        "Namespace web", "Secret key", "Secret web-secret-values", "ConfigMap n", "HelmChart web", "Widget w",
    ]  # fmt: skip
    assert api.objects["/apis/example.com/v1/namespaces/web/widgets/w"]["metadata"]["namespace"] == "web"
    second = converge(api, wanted)
    assert (second.changes, len(api.applied)) == ([], 6)


def test_a_changed_secret_value_makes_a_new_job_and_is_never_shown() -> None:
    api = Cluster()
    converge(api, declared(secret_values={"password": "first-secret"}))
    changed = converge(api, declared(secret_values={"password": "second-secret"}))
    shown = " ".join(str(change) for change in changed.changes)
    assert "valuesSecrets" in shown and "second-secret" not in shown
    assert converge(api, declared(secret_values={"password": "second-secret"})).changes == []


def test_a_failed_upgrade_is_rolled_back() -> None:
    api = Cluster(lambda chart: "" if chart["spec"]["version"] == "1.1.0" else "Complete",
                  "Error: UPGRADE FAILED: YAML parse error on web/templates/x.yaml")  # fmt: skip
    converge(api, declared())
    with pytest.raises(run.ChartError) as failure:
        converge(api, declared(version="1.1.0"))
    text = str(failure.value)
    assert text.startswith("chart web 1.1.0: the helm job failed: Error: UPGRADE FAILED: YAML parse error")
    assert "Last lines of the helm job:" in text and text.endswith("The release was rolled back to 1.0.0.")
    assert api.objects["/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/web"]["spec"]["version"] == "1.0.0"
    earlier = converge(api, declared())
    assert (earlier.installed_version, earlier.changes) == ("1.0.0", [])


def test_a_change_without_a_rollback_stays() -> None:
    api = Cluster(lambda chart: "" if chart["spec"]["version"] == "1.1.0" else "Complete", PERMANENT)
    converge(api, declared())
    with pytest.raises(run.ChartError, match=r"The release is not rolled back to 1\.0\.0"):
        converge(api, declared(version="1.1.0", rollback=False))
    assert api.objects["/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/web"]["spec"]["version"] == "1.1.0"


def test_a_fault_of_the_rollback_leaves_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Cluster(lambda chart: "" if chart["spec"]["version"] == "1.1.0" else "Complete", PERMANENT)
    converge(api, declared())

    def unreachable(manifest: Any) -> Json:
        if manifest["kind"] == "HelmChart" and manifest["spec"]["version"] == "1.0.0":
            raise ApiError("the Kubernetes API does not answer PATCH")
        return Cluster.apply(api, manifest)

    monkeypatch.setattr(api, "apply", unreachable)
    with pytest.raises(run.ChartError, match="YAML parse error") as failure:
        converge(api, declared(version="1.1.0"))
    assert str(failure.value).endswith("The rollback to 1.0.0 failed too: the Kubernetes API does not answer PATCH")


def test_an_object_whose_fields_cannot_change_is_created_again() -> None:
    api = Cluster()
    fast: Json = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}
    converge(api, declared(objects=[fast | {"reclaimPolicy": "Delete"}]))
    converge(api, declared(objects=[fast | {"reclaimPolicy": "Retain"}]))
    assert api.deleted == ["StorageClass fast"]
    assert api.objects["/apis/storage.k8s.io/v1/storageclasses/fast"]["reclaimPolicy"] == "Retain"


def test_a_failed_installation_ends_with_the_job_s_error_and_the_next_run_completes() -> None:
    api = Cluster(lambda chart: "", "Error: INSTALLATION FAILED: values don't meet the specifications of the schema(s)")
    with pytest.raises(run.ChartError, match="values don't meet the specifications"):
        converge(api, declared())
    api.outcome = lambda chart: "Complete"
    assert "values.replicas" in [change.key for change in converge(api, declared(values={"replicas": 2})).changes]


def test_an_interrupted_run_is_completed_without_a_change() -> None:
    api = Cluster(lambda chart: "")
    runner = run.Runner(api, declared())
    runner.read()
    for manifest in (*runner.before, runner.wanted):
        api.apply(plan.marked(manifest))  # the run was killed here
    api.outcome = lambda chart: "Complete"
    api.install(api.objects["/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/web"])
    assert converge(api, declared()).changes == []


def test_versions_are_compared_with_the_deployed_release() -> None:
    api = Cluster()
    converge(api, declared(version="1.3.0"))
    with pytest.raises(run.ChartError, match=r"1\.2\.0 is older than the installed 1\.3\.0"):
        run.Runner(api, declared(version="1.2.0")).read()
    with pytest.raises(run.ChartError, match=r"Set a version of 1\.4 first"):
        run.Runner(api, declared(version="1.5.0", minor_steps_only=True)).read()


def test_a_timeout_names_what_is_missing() -> None:
    api = Cluster(lambda chart: "")
    with pytest.raises(run.ChartError, match=r"helm job: the helm job's pod container helm: is not ready after 0 s"):
        converge(api, declared(timeout_seconds=0))


def test_absent_objects_are_deleted() -> None:
    api = Cluster()
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old", "namespace": "web"}}
    api.apply(old)
    entry = {"api_version": "v1", "kind": "ConfigMap", "name": "old", "namespace": ""}
    assert "ConfigMap web/old: delete" in [str(change) for change in converge(api, declared(absent=[entry])).changes]
    assert api.live(old) is None


def test_an_installed_chart_is_read_without_its_declaration() -> None:
    api = Cluster()
    assert run.installed_chart(api, "web") is None
    converge(api, declared())
    release = "/api/v1/namespaces/web/secrets/sh.helm.release.v1.web.v1"
    web = run.installed_chart(api, "web")
    assert web is not None
    assert (web.chart.version, web.chart.target_namespace, web.release_faults()) == ("1.0.0", "web", [])
    api.objects[release]["metadata"]["labels"]["status"] = "pending-upgrade"
    metadata = {"name": "web", "namespace": "web", "annotations": {plan.RELEASE: "web"}}
    api.objects["/apis/apps/v1/deployments/web"] = {"metadata": metadata, "spec": {"replicas": 2}, "status": {}}
    assert web.release_faults() == [
        "chart web 1.0.0: the release has the status pending-upgrade",
        "chart web 1.0.0: Deployment web/web: 0 of 2 pods are updated and available",
    ]
    del api.objects[release]
    assert "chart web 1.0.0: the release has the status none" in web.release_faults()
