"""The plan of a chart: what differs by key, which version may follow, when job, workload and webhook are ready."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import helm_chart_plan as plan

CHART = plan.Chart(
    "cert-manager", "cert-manager", "cert-manager", "v1.21.2", repo="https://charts.example.com", values={"replicas": 1}
)


def live(manifest: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """The manifest as the API returns it after it was applied."""
    applied = plan.marked(manifest)
    return {**applied, "metadata": {**applied["metadata"], "uid": "1", **metadata}, "status": {}}


def text(changes: list[plan.Change]) -> list[str]:
    return [str(change) for change in changes]


def test_a_manifest_that_was_applied_is_in_place() -> None:
    wanted = plan.helm_chart(CHART, "")
    assert plan.differences("HelmChart", wanted, live(wanted)) == []


def test_values_are_compared_as_data_in_both_directions() -> None:
    before = live(plan.helm_chart(CHART, ""))
    before["spec"]["valuesContent"] = json.dumps({"replicas": 1, "old": {"deep": [1]}})
    wanted = plan.helm_chart(plan.Chart(**{**vars(CHART), "values": {"replicas": 2}}), "")
    assert text(plan.differences("HelmChart kube-system/x", wanted, before)) == [
        "HelmChart kube-system/x: values.old.deep [1] -> (none)",
        "HelmChart kube-system/x: values.replicas 1 -> 2",
    ]


def test_values_that_a_person_wrote_as_yaml_are_one_difference() -> None:
    before = live(plan.helm_chart(CHART, ""))
    before["spec"]["valuesContent"] = "replicas: 1\n"
    found = plan.differences("HelmChart", plan.helm_chart(CHART, ""), before)
    assert [change.key for change in found] == ["values"]


def test_keys_of_the_cluster_are_left_alone_and_a_removed_key_is_a_difference() -> None:
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}]}}
    found = live(manifest)
    found["spec"] = {"ports": [{"port": 1, "protocol": "TCP"}], "clusterIP": "10.43.0.9"}
    assert plan.differences("Service", manifest, found) == []
    shorter = {**manifest, "spec": {}}
    assert [change.key for change in plan.differences("Service", shorter, found)] == [
        f"metadata.annotations.{plan.APPLIED}"
    ]


def test_secrets_are_shown_by_the_beginning_of_their_digest() -> None:
    wanted = plan.secret("tls-ca", "cattle-system", {"cacerts.pem": "new and secret"})
    found = plan.differences("Secret", wanted, live(plan.secret("tls-ca", "cattle-system", {"cacerts.pem": "old"})))
    assert len(found) == 1 and found[0].key == "data.cacerts.pem"
    assert found[0].before.startswith("sha256:") and found[0].before != found[0].after
    encoded = base64.b64encode(b"new and secret").decode()
    assert "new and secret" not in str(found[0]) and encoded not in str(found[0])


def test_an_object_that_does_not_exist_is_created() -> None:
    assert text(plan.differences("Namespace x", plan.namespace("x", {}), None)) == ["Namespace x: create"]


def test_secret_values_keep_their_key_until_they_change() -> None:
    stored = plan.secret("x", "kube-system", {"values-1.yaml": "a"})
    assert plan.secret_values_key(stored, "a", "values-2.yaml") == "values-1.yaml"
    assert plan.secret_values_key(stored, "b", "values-2.yaml") == "values-2.yaml"
    assert plan.secret_values_key(None, "b", "values-2.yaml") == "values-2.yaml"


@pytest.mark.parametrize(
    ("installed", "version", "one_minor", "expected"),
    [
        ("", "v1.21.2", True, ""),
        ("v1.21.1", "v1.21.2", True, ""),
        ("v1.20.3", "v1.21.2", True, ""),
        ("v1.19.0", "v1.21.2", False, ""),
        ("2.13.8", "2.15.1", True,
         "chart x: 2.13.8 to 2.15.1 skips a minor version. Set a version of 2.14 first."),
        ("v1.21.2", "v1.21.1", False,
         "chart x: v1.21.1 is older than the installed v1.21.2. Set v1.21.2 or newer; an older version needs a "
         "restore of its data."),
    ],
)  # fmt: skip
def test_versions(installed: str, version: str, one_minor: bool, expected: str) -> None:
    assert plan.version_refusal("x", installed, version, minor_steps_only=one_minor) == expected


def job(version: str = "v1.21.2", keys: tuple[str, ...] = ("HelmChartValuesContent",)) -> dict[str, Any]:
    environment = [{"name": "VERSION", "value": version}, {"name": "REPO", "value": CHART.repo}]
    items = [{"key": key, "path": key} for key in keys]
    pod = {
        "containers": [{"env": environment}],
        "volumes": [{"name": "values", "projected": {"sources": [{"secret": {"items": items}}]}}, {"name": "tmp"}],
    }
    annotations = {plan.HASH: "SHA256=" + "A" * 64}
    return {"spec": {"template": {"metadata": {"annotations": annotations}, "spec": pod}}, "status": {}}


def test_a_job_of_an_earlier_helm_chart_is_not_current() -> None:
    wanted = plan.helm_chart(CHART, "")
    values = plan.secret("chart-values-x", "kube-system", {"HelmChartValuesContent": wanted["spec"]["valuesContent"]})
    other = plan.secret("chart-values-x", "kube-system", {"HelmChartValuesContent": "{}"})
    assert plan.job_is_current(job(), values, wanted)
    assert not plan.job_is_current(None, values, wanted)
    assert not plan.job_is_current(job("v1.21.1"), values, wanted)
    assert not plan.job_is_current(job(), other, wanted)
    assert not plan.job_is_current(job(), values, plan.helm_chart(CHART, "values-2.yaml"))
    with_secret = job(keys=("HelmChartValuesContent", "values-2.yaml"))
    assert plan.job_is_current(with_secret, values, plan.helm_chart(CHART, "values-2.yaml"))


def test_the_release_is_compared_by_the_digest_of_the_job() -> None:
    assert plan.job_hash(job()) == "A" * 63


@pytest.mark.parametrize(
    ("log", "permanent"),
    [
        ("Error: INSTALLATION FAILED: values don't meet the specifications of the schema(s)", True),
        ('Error: chart "x" matching v9 not found in a index. (no chart version found)', True),
        ("Error: UPGRADE FAILED: Get https://10.43.0.1/api: connection refused", False),
        ('Error: failed calling webhook "webhook.cert-manager.io": admission webhook has no endpoints', False),
    ],
)
def test_errors_of_the_helm_job(log: str, permanent: bool) -> None:
    assert plan.job_error_is_permanent(log) is permanent
    assert plan.job_error(f"Upgrading x\n{log}\n\nUse --debug\n") == log


@pytest.mark.parametrize(
    ("kind", "spec", "status", "fault"),
    [
        ("Deployment", {"replicas": 2}, {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2}, ""),
        ("Deployment", {"replicas": 2}, {"observedGeneration": 1}, "its change is not observed yet"),
        ("Deployment", {"replicas": 1},
         {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
         "1 pods of the earlier version run"),
        ("StatefulSet", {"replicas": 2}, {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 1},
         "1 of 2 pods are updated and available"),
        ("DaemonSet", {}, {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3,
                           "numberAvailable": 2}, "2 of 3 pods are updated and available"),
    ],
)  # fmt: skip
def test_workloads(kind: str, spec: dict[str, Any], status: dict[str, Any], fault: str) -> None:
    item = {"metadata": {"name": "a", "namespace": "n", "generation": 2}, "spec": spec, "status": status}
    assert plan.workload_fault(kind, item) == (f"{kind} n/a: {fault}" if fault else "")


def test_a_condition_of_an_earlier_generation_is_not_met() -> None:
    item = {
        "metadata": {"name": "a", "generation": 2},
        "status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]},
    }
    assert plan.condition_fault("Certificate a", item, "Ready") == "Certificate a: its change is not observed yet"
    item["status"]["conditions"][0]["observedGeneration"] = 2  # type: ignore[index]
    assert plan.condition_fault("Certificate a", item, "Ready") == ""
    assert plan.condition_fault("Certificate a", None, "Ready") == "Certificate a: does not exist"


def test_a_pod_that_does_not_run_has_a_reason() -> None:
    waiting = {"name": "c", "ready": False, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    assert plan.pod_fault({"status": {"containerStatuses": [waiting]}}) == "container c: ErrImagePull not found"
    running = {"name": "c", "ready": True, "state": {"running": {}}}
    assert plan.pod_fault({"status": {"containerStatuses": [running]}}) == ""
    pending = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert plan.pod_fault({"status": {"conditions": [pending]}}) == "not scheduled: 0/3 nodes are available"
