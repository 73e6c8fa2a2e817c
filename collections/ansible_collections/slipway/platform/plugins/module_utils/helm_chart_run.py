"""Install and upgrade a chart by RKE2's HelmChart: read, plan (helm_chart_plan), apply, wait."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from ansible_collections.slipway.platform.plugins.module_utils import helm_chart_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils.helm_chart_plan import Change, Chart, Json
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import (
    ApiError,
    KubernetesApi,
    UnknownKind,
    label,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0
LOG_LINES = 15
EVENTS = 5
RESTARTS_TOLERATED = 4
"""A helm job's container is started again after 10, 20, 40, 80 s: what passes by itself has passed then."""
WORKLOADS = (("Deployment", "deployments"), ("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets"))
CONFIGURATIONS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
JOB = "helm-install-{}"
REPLACED = ("StorageClass", "VolumeSnapshotClass")
"""Kinds whose fields cannot be changed; what was made by them keeps a copy of its own."""


class ChartError(Exception):
    """The chart is not as declared; the text is the module's message."""


@dataclass
class Declared:
    """Everything that one task declares."""

    chart: Chart
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    secret_values: Mapping[str, Any] = field(default_factory=dict)
    secrets: Sequence[Mapping[str, Any]] = ()
    objects_before: Sequence[Json] = ()
    objects: Sequence[Json] = ()
    absent: Sequence[Mapping[str, str]] = ()
    wait_for: Sequence[Mapping[str, str]] = ()
    minor_steps_only: bool = False
    rollback: bool = True
    timeout_seconds: int = 600


class Runner:
    """One chart: `changes` after `read`, then `converge`."""

    def __init__(self, api: KubernetesApi, declared: Declared) -> None:
        self.api = api
        self.declared = declared
        self.chart = declared.chart
        self.name = f"chart {self.chart.name} {self.chart.version}"
        self.changes: list[Change] = []
        self.before: list[Json] = []
        """Manifests to apply before the chart, after those that are in namespace are taken out."""
        self.obsolete: list[Json] = []
        self.wanted: Json = {}
        self.live: Json | None = None
        self.installed_version = ""

    # plan

    def read(self) -> None:
        """Compare everything that is declared with the cluster."""
        chart, declared = self.chart, self.declared
        namespace = chart.target_namespace
        manifests: list[Json] = [plan.namespace(namespace, declared.namespace_labels)]
        for entry in declared.secrets:
            manifests.append(
                plan.secret(entry["name"], entry.get("namespace") or namespace, entry["data"], entry["type"])
            )
        secret_key = ""
        if declared.secret_values:
            content = plan.values_text(declared.secret_values)
            empty = plan.secret(chart.values_secret, plan.SYSTEM, {})
            secret_key = plan.secret_values_key(self.api.live(empty), content, f"values-{secrets.token_hex(4)}.yaml")
            manifests.append(plan.secret(chart.values_secret, plan.SYSTEM, {secret_key: content}))
        manifests += [self._placed(item) for item in declared.objects_before]
        self.before = [item for item in manifests if self._plan(item)]
        self.wanted = plan.helm_chart(chart, secret_key)
        self.live = self.api.live(self.wanted)
        self.changes += plan.differences(label(self.wanted), self.wanted, self.live)
        self.installed_version = self._installed()
        if refusal := plan.version_refusal(
            chart.name, self.installed_version, chart.version, minor_steps_only=declared.minor_steps_only
        ):
            raise ChartError(refusal)
        for item in declared.objects:
            self._plan(self._placed(item))
        for entry in declared.absent:
            manifest = self._placed(named(entry))
            if self.api.live(manifest) is not None:
                self.obsolete.append(manifest)
                self.changes.append(Change(label(manifest), "", manifest["metadata"]["name"], None))

    def _placed(self, manifest: Mapping[str, Any]) -> Json:
        """The manifest with the chart's namespace, where its kind has namespaces and it names none."""
        if "namespace" in manifest["metadata"]:
            return dict(manifest)
        probe = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.chart.target_namespace}}
        try:
            namespaced = "/namespaces/" in self.api.path(probe) and manifest["kind"] != "Namespace"
        except UnknownKind:
            return dict(manifest)  # a kind of the chart itself: placed when it is applied
        return plan.in_namespace(manifest, self.chart.target_namespace, namespaced=namespaced)

    def _plan(self, manifest: Json) -> bool:
        found = plan.differences(label(manifest), manifest, self.api.live(manifest))
        self.changes += found
        return bool(found)

    def _installed(self) -> str:
        """Version of the newest deployed release, empty without one; read only when the declared one is new."""
        if self.live is None:
            return ""
        if (stated := plan.stated_version(self.live)) == self.chart.version:
            return stated
        deployed = [item for item in self._releases() if item["metadata"]["labels"].get("status") == "deployed"]
        newest = plan.latest_release(deployed)
        return release_version(newest) if newest else ""

    def _releases(self) -> list[Json]:
        return self.api.items(
            f"/api/v1/namespaces/{self.chart.target_namespace}/secrets"
            f"?labelSelector=owner%3Dhelm,name%3D{self.chart.name}"
        )

    # converge

    def converge(self) -> None:
        """Apply the changes, and wait for whatever the chart starts; also for what an interrupted run left."""
        chart_changed = any(change.object == label(self.wanted) for change in self.changes)
        for manifest in self.before:
            self.api.apply(plan.marked(manifest))
        if chart_changed:
            self.api.apply(plan.marked(self.wanted))
        try:
            self._wait_job()
            self._wait_workloads()
        except ChartError as error:
            if not chart_changed or self.live is None or not self.installed_version:
                raise
            if not self.declared.rollback:
                raise ChartError(f"{error}\nThe release is not rolled back to {self.installed_version}.") from error
            raise ChartError(f"{error}\n{self._roll_back()}") from error
        for manifest in self.declared.objects:
            self._apply_object(manifest)
        for manifest in self.obsolete:
            self.api.delete(manifest)
        for entry in self.declared.wait_for:
            self._wait_condition(entry)

    def _roll_back(self) -> str:
        """Restore the earlier HelmChart; returns the sentence about its result."""
        assert self.live is not None
        metadata = {key: self.live["metadata"][key] for key in ("name", "namespace")}
        # With our annotations, so that the earlier declaration is no change in the next run.
        annotations = self.live["metadata"].get("annotations") or {}
        metadata["annotations"] = {key: annotations[key] for key in (plan.APPLIED, plan.VERSION) if key in annotations}
        earlier = {**{key: self.live[key] for key in ("apiVersion", "kind", "spec")}, "metadata": metadata}
        if self.declared.secret_values and self.before:
            return (
                "The earlier release is not restored: its secret values are replaced. Correct the values and run again."
            )
        self.wanted = {**earlier, "spec": {"valuesContent": "", **earlier["spec"]}}
        try:
            self.api.apply(earlier)
            definitions = plan.of_release(
                self.api.items("/apis/apiextensions.k8s.io/v1/customresourcedefinitions"), self.chart.name
            )
            self._wait_job()
            self._wait_workloads()
        except (ChartError, ApiError) as error:
            return f"The rollback to {self.installed_version} failed too: {error}"
        note = " Its CustomResourceDefinitions are not rolled back." if definitions else ""
        return f"The release was rolled back to {self.installed_version}.{note}"

    def _wait(
        self, what: str, read: Callable[[], Any], unmet: Callable[[Any], Sequence[str]], evidence: Callable[[], str]
    ) -> None:
        try:
            wait_until(
                f"{self.name}: {what}", read, unmet, timeout_seconds=self.declared.timeout_seconds,
                interval_seconds=POLL_SECONDS, passing=ApiError,
            )  # fmt: skip
        except NotMet as error:
            raise ChartError(
                f"{error}. Correct the cause and run again; the run resumes at this step.{evidence()}"
            ) from error
        except ApiError as error:
            raise ChartError(f"{self.name}: {what}: {error}. Correct the cause and run again.{evidence()}") from error

    def _wait_job(self) -> None:
        restarts: dict[str, int] = {}

        def read() -> tuple[Json | None, Json | None]:
            return self._job(), self.api.get(f"/api/v1/namespaces/{plan.SYSTEM}/secrets/chart-values-{self.chart.name}")

        def unmet(found: tuple[Json | None, Json | None]) -> list[str]:
            job, values = found
            if job is None or not plan.job_is_current(job, values, self.wanted):
                return ["helm-controller has not made the helm job"]
            state = plan.job_state(job)
            if state == "failed":
                raise ChartError(self._job_message("the helm job failed"))
            if state == "complete":
                newest = plan.latest_release(self._releases())
                labels = newest["metadata"]["labels"] if newest else {}
                if labels.get("status") == "deployed" and labels.get(plan.HASH, "") == plan.job_hash(job):
                    return []
                return [f"the release has the status {labels.get('status', 'none')}, or is not of this helm job"]
            for pod in self._job_pods():
                count = sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or [])
                first = restarts.setdefault(pod["metadata"]["uid"], 0 if self.changes else count)
                if count > first and (
                    plan.job_error_is_permanent(log := self._pod_log(pod)) or count - first > RESTARTS_TOLERATED
                ):
                    cause = plan.job_error(log) or f"it was restarted {count} times without a message"
                    raise ChartError(self._job_message(f"the helm job failed: {cause}"))
                if fault := plan.pod_fault(pod):
                    return [f"the helm job's pod {fault}"]
            return ["the helm job runs"]

        self._wait("helm job", read, unmet, self._job_evidence)

    def _job(self) -> Json | None:
        return self.api.get(f"/apis/batch/v1/namespaces/{plan.SYSTEM}/jobs/{JOB.format(self.chart.name)}")

    def _job_pods(self) -> list[Json]:
        selector = quote(f"{plan.CHART_LABEL}={self.chart.name}")
        return self.api.items(f"/api/v1/namespaces/{plan.SYSTEM}/pods?labelSelector={selector}")

    def _pod_log(self, pod: Json) -> str:
        """The last lines of the container that ended last, else of the one that runs."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log?tailLines={LOG_LINES}"
        return self.api.text(f"{path}&previous=true") or self.api.text(path)

    def _job_message(self, cause: str) -> str:
        return (
            f"{self.name}: {cause.rstrip('.')}. Correct the cause and run again; the run resumes at this step."
            f"{self._job_evidence()}"
        )

    def _job_evidence(self) -> str:
        pods = self._try(self._job_pods, [])
        log = self._try(lambda: self._pod_log(pods[-1]), "") if pods else ""
        text = f"\nLast lines of the helm job:\n{log.strip()}" if log else ""
        return text + (self._events(pods[-1]) if pods else "")

    def _events(self, pod: Json) -> str:
        metadata = pod["metadata"]
        found = self._try(
            lambda: self.api.items(
                f"/api/v1/namespaces/{metadata['namespace']}/events?fieldSelector=involvedObject.name%3D{metadata['name']}"
            ),
            [],
        )
        lines = [f"{item.get('reason')}: {item.get('message')}" for item in found if item.get("type") == "Warning"]
        return (
            f"\nEvents of pod {metadata['namespace']}/{metadata['name']}:\n" + "\n".join(lines[-EVENTS:])
            if lines
            else ""
        )

    @staticmethod
    def _try(read: Callable[[], Any], otherwise: Any) -> Any:
        """Evidence of a failure, as far as the API gives it."""
        try:
            return read()
        except ApiError:
            return otherwise

    # workloads

    def workloads(self) -> list[tuple[str, Json]]:
        selector = "?labelSelector=app.kubernetes.io%2Fmanaged-by%3DHelm"
        return [
            (kind, dict(item))
            for kind, plural in WORKLOADS
            for item in plan.of_release(self.api.items(f"/apis/apps/v1/{plural}{selector}"), self.chart.name)
        ]

    def workload_faults(self) -> list[str]:
        faults = [plan.workload_fault(kind, item) for kind, item in self.workloads()]
        configurations = [
            item
            for plural in CONFIGURATIONS
            for item in plan.of_release(
                self.api.items(f"/apis/admissionregistration.k8s.io/v1/{plural}"), self.chart.name
            )
        ]
        services: dict[tuple[str, str], bool] = {}
        for webhook, namespace, service, has_bundle in plan.webhook_services(configurations):
            if not has_bundle:
                faults.append(f"webhook {webhook}: has no CA bundle")
            elif (namespace, service) not in services:
                services[namespace, service] = self._has_endpoints(namespace, service)
                if not services[namespace, service]:
                    faults.append(f"webhook {webhook}: its Service {namespace}/{service} has no ready endpoint")
        return [fault for fault in faults if fault]

    def _has_endpoints(self, namespace: str, service: str) -> bool:
        slices = self.api.items(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        )
        return any(
            (endpoint.get("conditions") or {}).get("ready", True)
            for item in slices
            for endpoint in item.get("endpoints") or []
        )

    def _wait_workloads(self) -> None:
        self._wait("workloads", self.workload_faults, lambda faults: faults, self._workload_evidence)

    def _workload_evidence(self) -> str:
        """Cause and events of the first pod of the chart's namespace that does not run."""
        pods = self._try(lambda: self.api.items(f"/api/v1/namespaces/{self.chart.target_namespace}/pods"), [])
        for pod in pods:
            if fault := plan.pod_fault(pod):
                log = self._try(partial(self._pod_log, pod), "")
                return (
                    f"\nPod {pod['metadata']['name']}: {fault}{self._events(pod)}"
                    + (f"\nIts last lines:\n{log.strip()}" if log else "")
                )  # fmt: skip
        return ""

    # objects after the chart

    def _apply_object(self, manifest: Json) -> None:
        """Apply a manifest that differs; a kind or webhook that the chart has just made may need seconds."""

        def apply() -> Json:
            item = self._placed(manifest)
            live = self.api.live(item)
            if plan.differences(label(item), item, live):
                if live is not None and item["kind"] in REPLACED:
                    self.api.delete(item)
                self.api.apply(plan.marked(item))
            return item

        self._wait(label(manifest), apply, lambda _: [], self._workload_evidence)

    def _wait_condition(self, entry: Mapping[str, str]) -> None:
        manifest = named(entry)
        self._wait(
            f"{label(manifest)}",
            lambda: self.api.get(self.api.path(manifest)),
            lambda item: [fault] if (fault := plan.condition_fault(label(manifest), item, entry["condition"])) else [],
            self._workload_evidence,
        )

    def release_faults(self) -> list[str]:
        """What is wrong with an installed release, without waiting."""
        newest = plan.latest_release(self._releases())
        status = newest["metadata"]["labels"].get("status", "none") if newest else "none"
        faults = [] if status == "deployed" else [f"the release has the status {status}"]
        return [f"{self.name}: {fault}" for fault in [*faults, *self.workload_faults()]]

    def simulation(self) -> bool:
        """Whether a workload of the release is marked as a test double."""
        return any((item["metadata"].get("labels") or {}).get(plan.SIMULATION) for _, item in self.workloads())

    def unmet_conditions(self) -> list[str]:
        """Declared conditions that are not met, without waiting."""
        found = []
        for entry in self.declared.wait_for:
            manifest = named(entry)
            found.append(plan.condition_fault(label(manifest), self.api.live(manifest), entry["condition"]))
        return [fault for fault in found if fault]


def installed_chart(api: KubernetesApi, name: str) -> Runner | None:
    """A chart as its HelmChart in the cluster declares it; None without one."""
    probe = {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name, "namespace": plan.SYSTEM},
    }
    live = api.live(probe)
    if live is None:
        return None
    spec = live["spec"]
    chart = Chart(name, spec.get("targetNamespace", plan.SYSTEM), spec.get("chart", ""), plan.stated_version(live))
    return Runner(api, Declared(chart))


def named(entry: Mapping[str, str]) -> Json:
    """The manifest that only names an object."""
    metadata = {"name": entry["name"], **({"namespace": entry["namespace"]} if entry["namespace"] else {})}
    return {"apiVersion": entry["api_version"], "kind": entry["kind"], "metadata": metadata}


def release_version(secret: Mapping[str, Any]) -> str:
    """The chart's version in a release as helm stores it; empty when it cannot be read."""
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        return str(json.loads(gzip.decompress(packed))["chart"]["metadata"]["version"])
    except (KeyError, ValueError, OSError, binascii.Error):
        return ""
