"""What differs between a declared chart and the cluster. Pure functions: manifests in, changes out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
APPLIED = "slipway.dev/applied"
"""Annotation with the digest of the manifest that was applied last: a removed key is a difference too."""
VERSION = "slipway.dev/version"
"""Annotation with the version of the chart."""
SYSTEM = "kube-system"
"""The namespace of HelmCharts: RKE2's own are there, and its profile cis exempts it."""
CHART_LABEL = "helmcharts.helm.cattle.io/chart"
HASH = "helmcharts.helm.cattle.io/configHash"
RELEASE = "meta.helm.sh/release-name"
SIMULATION = "slipway.dev/simulation"
SECRET_KEYS = ("data", "stringData")
HIDDEN = "(secret)"
MISSING = "(none)"


@dataclass(frozen=True)
class Chart:
    """A chart as the module's caller declares it."""

    name: str
    target_namespace: str
    chart: str
    version: str
    repo: str = ""
    repo_ca: str = ""
    chart_content: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    failure_policy: str = "retry"

    @property
    def values_secret(self) -> str:
        return f"{self.name}-secret-values"


@dataclass(frozen=True)
class Change:
    """One key of one object."""

    object: str
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if not self.key:
            return f"{self.object}: {'create' if self.before is None else 'delete'}"
        return f"{self.object}: {self.key} {shown(self.before)} -> {shown(self.after)}"


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:119]}…"


def fingerprint(value: Any) -> str:
    """How a secret is shown: equal secrets look equal, and none can be read."""
    content = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def marked(manifest: Mapping[str, Any]) -> Json:
    """The manifest with the annotation of its digest."""
    metadata = dict(manifest["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), APPLIED: digest(manifest)}
    return {**manifest, "metadata": metadata}


def in_namespace(manifest: Mapping[str, Any], namespace: str, *, namespaced: bool) -> Json:
    """The manifest with its namespace: its own, else the chart's."""
    metadata = dict(manifest["metadata"])
    if namespaced:
        metadata.setdefault("namespace", namespace)
    return {**manifest, "metadata": metadata}


def values_text(values: Mapping[str, Any]) -> str:
    """Values as helm reads them: JSON is valid YAML, and a host has no reader of YAML."""
    return json.dumps(values, sort_keys=True, indent=1) + "\n"


def helm_chart(chart: Chart, secret_key: str) -> Json:
    """The HelmChart; `secret_key` is the key of the secret values in their Secret, empty without any."""
    spec: Json = {
        "targetNamespace": chart.target_namespace,
        "failurePolicy": chart.failure_policy,
        "valuesContent": values_text(chart.values),
    }
    if chart.chart_content:
        spec["chartContent"] = chart.chart_content
    else:
        spec |= {"chart": chart.chart, "version": chart.version}
        if chart.repo:
            spec["repo"] = chart.repo
        if chart.repo_ca:
            spec["repoCA"] = chart.repo_ca
    if secret_key:
        spec["valuesSecrets"] = [{"name": chart.values_secret, "keys": [secret_key]}]
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {
            "name": chart.name, "namespace": SYSTEM, "annotations": {VERSION: chart.version},
        },
        "spec": spec,
    }  # fmt: skip


def stated_version(helm_chart: Mapping[str, Any]) -> str:
    """The version that a HelmChart declares; that of `chartContent` is in an annotation of ours."""
    annotations = helm_chart["metadata"].get("annotations") or {}
    return str(annotations.get(VERSION) or helm_chart["spec"].get("version", ""))


def namespace(name: str, labels: Mapping[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def secret(name: str, namespace: str, data: Mapping[str, str], kind: str = "Opaque") -> Json:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": namespace},
        "data": encoded,
    }  # fmt: skip


def secret_values_key(live: Mapping[str, Any] | None, content: str, fresh: str) -> str:
    """The key of the secret values: the live one if it holds this content, else `fresh`.

    A new content gets a new key, so that the helm job shows which content it has, without a digest of it.
    """
    for key, value in ((live or {}).get("data") or {}).items():
        if base64.b64decode(value).decode(errors="replace") == content:
            return str(key)
    return fresh


def differences(name: str, wanted: Mapping[str, Any], live: Mapping[str, Any] | None) -> list[Change]:
    """By key, what applying `wanted` changes in `live`. Keys that only `live` has are the cluster's own."""
    if live is None:
        return [Change(name, "", None, wanted["metadata"]["name"])]
    hidden = wanted["kind"] == "Secret"
    changes = [
        Change(name, key, fingerprint(before) if hidden and before is not None else before,
               fingerprint(after) if hidden else after)
        if hidden and key.split(".")[0] in SECRET_KEYS
        else Change(name, key, before, after)
        for key, before, after in _compare(wanted, live, "")
    ]  # fmt: skip
    if not changes and (live["metadata"].get("annotations") or {}).get(APPLIED) != digest(wanted):
        changes.append(Change(name, f"metadata.annotations.{APPLIED}", "another manifest", "this manifest"))
    return changes


def _compare(wanted: Any, live: Any, key: str) -> Iterable[tuple[str, Any, Any]]:
    if key.endswith("spec.valuesContent"):
        yield from _compare_values(wanted, live)
    elif isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for name, value in wanted.items():
            yield from _compare(value, live.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _compare(one, other, f"{key}[{index}]")
    elif wanted != live and not (live is None and wanted in ({}, [], "", None)):
        yield key, live, wanted


def _compare_values(wanted: str, live: Any) -> Iterable[tuple[str, Any, Any]]:
    """Helm's values as data, in both directions."""
    try:
        before = flat(json.loads(live or "{}"))
    except ValueError:
        yield "values", "text that this module did not write", "data"
        return
    after = flat(json.loads(wanted))
    for key in sorted({*before, *after}):
        if before.get(key, MISSING) != after.get(key, MISSING):
            yield f"values.{key}", before.get(key, MISSING), after.get(key, MISSING)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with keys like `webhook.replicaCount`; lists and empty dicts are values."""
    if not isinstance(value, Mapping) or (not value and prefix):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


# Versions


def version_numbers(text: str) -> tuple[int, int, int]:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


def version_refusal(name: str, installed: str, version: str, *, minor_steps_only: bool) -> str:
    """Why the chart must not go from one version to the other; empty if it may."""
    before, after = version_numbers(installed), version_numbers(version)
    if not installed or before == after:
        return ""
    if after < before:
        return (
            f"chart {name}: {version} is older than the installed {installed}. Set {installed} or newer; an older "
            "version needs a restore of its data."
        )
    if minor_steps_only and (after[0] != before[0] or after[1] > before[1] + 1):
        following = f"{before[0]}.{before[1] + 1}"
        return f"chart {name}: {installed} to {version} skips a minor version. Set a version of {following} first."
    return ""


# The helm job


def job_is_current(job: Mapping[str, Any] | None, controller_values: Mapping[str, Any] | None, wanted: Json) -> bool:
    """Whether helm-controller made this job from the wanted HelmChart, and not from an earlier one."""
    if job is None or controller_values is None:
        return False
    spec = wanted["spec"]
    pod = job["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}
    if environment.get("VERSION", "") != spec.get("version", "") or environment.get("REPO", "") != spec.get("repo", ""):
        return False
    data = controller_values.get("data") or {}
    for key, value in (("HelmChartValuesContent", spec["valuesContent"]), ("RepoCA", spec.get("repoCA", ""))):
        if base64.b64decode(data.get(key, "")).decode() != value:
            return False
    keys = {
        item["key"]
        for volume in pod["volumes"]
        for source in (volume.get("projected") or {}).get("sources") or []
        for item in (source.get("secret") or {}).get("items") or []
    }
    return all(key in keys for entry in spec.get("valuesSecrets", []) for key in entry["keys"])


def job_state(job: Mapping[str, Any]) -> str:
    """complete, failed or running."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return str(condition["type"]).lower()
    return "running"


def job_hash(job: Mapping[str, Any]) -> str:
    """The digest of everything that the job installs, as helm-controller puts it on the release."""
    annotations = job["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(HASH, "")).partition("=")[2][:63]


def latest_release(secrets: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of helm's Secrets of a release, that of the newest revision."""
    return max(secrets, key=lambda item: int(item["metadata"]["labels"].get("version", 0)), default=None)


PERMANENT_JOB_ERRORS = (
    "don't meet the specifications of the schema",
    "execution error at (",
    "YAML parse error",
    "parse error at (",
    "no chart version found",
    "not found in",
    "chart requires kubeVersion",
    "invalid ownership metadata",
    "field is immutable",
    "admission webhook",
)
"""What a helm job prints when a retry cannot help; all others may pass."""


def job_error(log: str) -> str:
    """The line of a helm job's log with the reason of the failure."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith(("Error:", "Error "))), lines[-1] if lines else "")


def job_error_is_permanent(log: str) -> bool:
    return any(mark in log for mark in PERMANENT_JOB_ERRORS) and "failed calling webhook" not in log


# Workloads and webhooks


def of_release(items: Iterable[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [item for item in items if (item["metadata"].get("annotations") or {}).get(RELEASE) == name]


def workload_fault(kind: str, workload: Mapping[str, Any]) -> str:
    """Why a workload is not ready; empty if it is."""
    metadata, status, spec = workload["metadata"], workload.get("status", {}), workload["spec"]
    name = f"{kind} {metadata['namespace']}/{metadata['name']}"
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return f"{name}: its change is not observed yet"
    if kind == "DaemonSet":
        count = status.get("desiredNumberScheduled", 0)
        updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        count = spec.get("replicas", 1)
        updated = status.get("updatedReplicas", 0)
        available = status.get("availableReplicas", 0)
        if kind == "Deployment" and status.get("replicas", 0) > count:
            return f"{name}: {status['replicas'] - count} pods of the earlier version run"
    if updated < count or available < count:
        return f"{name}: {min(updated, available)} of {count} pods are updated and available"
    return ""


def webhook_services(configurations: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, bool]]:
    """Of webhook configurations: webhook, namespace and name of its Service, and whether it has a CA bundle."""
    found = []
    for configuration in configurations:
        for webhook in configuration.get("webhooks") or []:
            client = webhook["clientConfig"]
            if service := client.get("service"):
                found.append((webhook["name"], service["namespace"], service["name"], bool(client.get("caBundle"))))
    return found


def condition_fault(name: str, item: Mapping[str, Any] | None, condition: str) -> str:
    """Why an object does not meet a condition; empty if it does."""
    if item is None:
        return f"{name}: does not exist"
    for entry in (item.get("status") or {}).get("conditions") or []:
        if entry["type"] == condition:
            observed = entry.get("observedGeneration", item["metadata"].get("generation", 0))
            if observed < item["metadata"].get("generation", 0):
                return f"{name}: its change is not observed yet"
            if entry["status"] == "True":
                return ""
            reason = entry.get("message") or entry.get("reason") or "no reason"
            return f"{name}: {condition} is {entry['status']}, {reason}"
    return f"{name}: has no condition {condition}"


def pod_fault(pod: Mapping[str, Any]) -> str:
    """Why the containers of a pod do not run; empty if they do."""
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state", {})
        if waiting := state.get("waiting"):
            if waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
                return f"container {container['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
        elif (ended := state.get("terminated")) and ended.get("exitCode"):
            return f"container {container['name']}: exited with code {ended['exitCode']}"
        elif not container.get("ready", False) and not ended:
            return f"container {container['name']}: is not ready"
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message', '')}"
    return ""
