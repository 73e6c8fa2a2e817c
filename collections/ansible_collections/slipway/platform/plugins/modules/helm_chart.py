#!/usr/bin/python
"""Ansible module: install or upgrade a Helm chart by RKE2's HelmChart resource."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: helm_chart
short_description: Install or upgrade a Helm chart by RKE2's HelmChart resource
description:
  - Runs on a server of the cluster and uses RKE2's administrator kubeconfig there.
  - Applies namespace, secrets and O(objects_before), then the HelmChart (C(helm.cattle.io/v1)), waits for the helm job,
    for the workloads of the release and for its webhooks, then applies O(objects) and waits for the conditions of
    O(wait_for).
  - Compares every declared key with the cluster first. Values of the chart are compared as data. Keys that only the
    live object has are left alone.
  - An installation or upgrade that an earlier run began is waited for. If an upgrade fails, the earlier release is
    restored; definitions of custom resources keep the newer version.
  - Rejects a version older than the installed one.
author: [Slipway]
attributes:
  check_mode: {support: full, description: Compares without a change.}
  diff_mode: {support: full, description: Differences by key; secrets as the beginning of their digest.}
options:
  name: {type: str, required: true, description: Name of the HelmChart and of the release.}
  target_namespace: {type: str, required: true, description: Namespace of the release. The module creates it.}
  namespace_labels: {type: dict, default: {}, description: Labels of the namespace.}
  chart: {type: str, default: "", description: Name of the chart in O(repo). Required without O(chart_content).}
  version: {type: str, required: true, description: Exact version of the chart.}
  repo: {type: str, default: "", description: HTTPS address of the chart repository.}
  repo_ca: {type: str, default: "", description: Authority of its certificate, in PEM form; empty for a public one.}
  chart_content: {type: str, default: "", description: "The chart's archive, in base64, in place of O(repo)."}
  values: {type: dict, default: {}, description: Values of the chart.}
  secret_values:
    description: Values that only the helm job reads, from a Secret. They override O(values).
    type: dict
    default: {}
  secrets:
    description: Secrets to create before the chart.
    type: list
    elements: dict
    default: []
    options:
      name: {type: str, required: true, description: Name of the Secret.}
      namespace: {type: str, default: "", description: "Its namespace. Default: O(target_namespace)."}
      type: {type: str, default: Opaque, description: Type of the Secret.}
      data: {type: dict, required: true, description: "Keys and their texts, not encoded."}
  objects_before:
    description: Manifests to apply before the chart. Those without a namespace get O(target_namespace).
    type: list
    elements: dict
    default: []
  objects:
    description: Manifests to apply after the workloads and webhooks of the chart are ready.
    type: list
    elements: dict
    default: []
  absent:
    description: Objects to delete, after O(objects) are applied.
    type: list
    elements: dict
    default: []
    options:
      api_version: {type: str, required: true, description: Group and version.}
      kind: {type: str, required: true, description: Kind.}
      name: {type: str, required: true, description: Name.}
      namespace: {type: str, default: "", description: Namespace; empty for an object of the cluster.}
  wait_for:
    description: Conditions to wait for at the end.
    type: list
    elements: dict
    default: []
    options:
      api_version: {type: str, required: true, description: Group and version.}
      kind: {type: str, required: true, description: Kind.}
      name: {type: str, required: true, description: Name.}
      namespace: {type: str, default: "", description: Namespace; empty for an object of the cluster.}
      condition: {type: str, default: Ready, description: Condition that has to be true.}
  minor_steps_only: {type: bool, default: false, description: Whether to reject an upgrade that skips a minor version.}
  rollback:
    description: Whether a failed change restores the earlier release; not for programs that cannot read newer data.
    type: bool
    default: true
  failure_policy:
    description: What helm-controller does with a failed release.
    type: str
    choices: [retry, abort, reinstall]
    default: retry
  timeout_seconds:
    description: Seconds to wait for the helm job, for the workloads and for each condition.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Install cert-manager
  slipway.platform.helm_chart:
    name: cert-manager
    target_namespace: cert-manager
    repo: https://charts.jetstack.io
    chart: cert-manager
    version: v1.21.2
    values: {crds: {enabled: true, keep: true}}
    objects:
      - apiVersion: cert-manager.io/v1
        kind: ClusterIssuer
        metadata: {name: selfsigned}
        spec: {selfSigned: {}}
    wait_for:
      - {api_version: cert-manager.io/v1, kind: ClusterIssuer, name: selfsigned}
"""

RETURN = r"""
changes:
  description: What was changed, or would be, by object and key.
  type: list
  elements: str
  returned: always
installed_version:
  description: Version of the chart before; empty if there was no release.
  type: str
  returned: always
version:
  description: The declared version.
  type: str
  returned: always
simulation:
  description: Whether a workload of the release is labelled as a test double.
  type: bool
  returned: always
waited_seconds:
  description: Seconds until everything was ready.
  type: float
  returned: always
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.helm_chart_plan import Chart
from ansible_collections.slipway.platform.plugins.module_utils.helm_chart_run import ChartError, Declared, Runner
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import ReadError

TEXT = {"type": "str", "default": ""}
REQUIRED = {"type": "str", "required": True}
MANIFESTS = {"type": "list", "elements": "dict", "default": []}
OBJECT: dict[str, Any] = {"api_version": REQUIRED, "kind": REQUIRED, "name": REQUIRED, "namespace": TEXT}


def arguments() -> dict[str, Any]:
    return {
        "name": REQUIRED,
        "target_namespace": REQUIRED,
        "namespace_labels": {"type": "dict", "default": {}},
        "chart": TEXT,
        "version": REQUIRED,
        "repo": TEXT,
        "repo_ca": TEXT,
        "chart_content": TEXT,
        "values": {"type": "dict", "default": {}},
        "secret_values": {"type": "dict", "default": {}, "no_log": True},
        "secrets": {
            "type": "list", "elements": "dict", "default": [], "no_log": False,
            "options": {
                "name": REQUIRED, "namespace": TEXT, "type": {"type": "str", "default": "Opaque"},
                "data": {"type": "dict", "required": True, "no_log": True},
            },
        },
        "objects_before": MANIFESTS,
        "objects": MANIFESTS,
        "absent": {**MANIFESTS, "options": OBJECT},
        "wait_for": {**MANIFESTS, "options": {**OBJECT, "condition": {"type": "str", "default": "Ready"}}},
        "minor_steps_only": {"type": "bool", "default": False},
        "rollback": {"type": "bool", "default": True},
        "failure_policy": {"type": "str", "choices": ["retry", "abort", "reinstall"], "default": "retry"},
        "timeout_seconds": {"type": "int", "default": 600},
    }  # fmt: skip


def declared(parameters: dict[str, Any]) -> Declared:
    of_chart = (
        "name",
        "target_namespace",
        "chart",
        "version",
        "repo",
        "repo_ca",
        "chart_content",
        "values",
        "failure_policy",
    )
    others = ("namespace_labels", "secret_values", "secrets", "objects_before", "objects", "absent", "wait_for",
              "minor_steps_only", "rollback", "timeout_seconds")  # fmt: skip
    return Declared(
        chart=Chart(**{name: parameters[name] for name in of_chart}), **{name: parameters[name] for name in others}
    )


def diff(runner: Runner) -> list[dict[str, Any]]:
    """One difference for each object, by key."""
    objects = dict.fromkeys(change.object for change in runner.changes)
    return [
        {
            "before_header": name,
            "after_header": name,
            "before": {change.key or name: change.before for change in runner.changes if change.object == name},
            "after": {change.key or name: change.after for change in runner.changes if change.object == name},
        }
        for name in objects
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec=arguments(),
        supports_check_mode=True,
        required_one_of=[("chart", "chart_content")],
        mutually_exclusive=[("repo", "chart_content")],
    )
    runner = Runner(KubernetesApi(), declared(module.params))
    started_at = time.monotonic()
    try:
        runner.read()
        if not module.check_mode:
            runner.converge()
        simulation = runner.simulation()
    except ChartError as error:
        module.fail_json(msg=str(error), changes=[str(change) for change in runner.changes])
    except (ApiError, ReadError, OSError) as error:
        module.fail_json(
            msg=f"{runner.name}: {error}. Correct the cause and run again; the run resumes at this step.",
            changes=[str(change) for change in runner.changes],
        )
    module.exit_json(
        changed=bool(runner.changes),
        changes=[str(change) for change in runner.changes],
        installed_version=runner.installed_version,
        version=runner.chart.version,
        simulation=simulation,
        waited_seconds=round(time.monotonic() - started_at, 1),
        diff=diff(runner),
    )


if __name__ == "__main__":
    main()
