"""Ansible module: read the state of charts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: helm_chart_info
short_description: Read whether charts are installed and their workloads and webhooks are ready
description:
  - Reads the Kubernetes API of the server that it runs on, and changes nothing.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
options:
  charts:
    type: list
    elements: str
    required: true
    description: Names of HelmCharts that M(slipway.platform.helm_chart) installed.
  timeout_seconds:
    type: int
    default: 0
    description: Seconds to repeat the reading while there are findings.
"""

EXAMPLES = r"""
- name: Read the state of cert-manager
  slipway.platform.helm_chart_info:
    charts: [cert-manager]
  register: charts
"""

RETURN = r"""
charts:
  description: Per name the version and whether a workload is a simulation; only of charts that are installed.
  returned: success
  type: dict
  sample: { cert-manager: { version: v1.21.2, simulation: false } }
findings:
  description: What is wrong, one sentence each.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.helm_chart_run import installed_chart
from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi
from ansible_collections.slipway.platform.plugins.module_utils.rke2_read import ReadError
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

INTERVAL_SECONDS = 2


def read(names: list[str]) -> tuple[dict[str, Any], list[str]]:
    """State of the charts that are installed, and the findings about all."""
    api = KubernetesApi()
    states: dict[str, Any] = {}
    findings = []
    for name in names:
        runner = installed_chart(api, name)
        if runner is None:
            findings.append(f"chart {name}: is not installed. Run site.yml.")
        else:
            states[name] = {"version": runner.chart.version, "simulation": runner.simulation()}
            findings += runner.release_faults()
    return states, findings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "charts": {"type": "list", "elements": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        states, findings = wait_until(
            "charts",
            lambda: read(module.params["charts"]),
            lambda found: found[1],
            timeout_seconds=module.params["timeout_seconds"],
            interval_seconds=INTERVAL_SECONDS,
            passing=(ApiError, ReadError, OSError),
        )
    except NotMet as error:
        if error.value is None:
            module.fail_json(msg=f"{error}. Correct the cause with playbooks/rke2.yml, then run again.")
        states, findings = error.value
    except (ApiError, ReadError, OSError) as error:
        module.fail_json(msg=f"charts: {error}. Correct the cause, then run again.")
    module.exit_json(changed=False, charts=states, findings=findings)


if __name__ == "__main__":
    main()
