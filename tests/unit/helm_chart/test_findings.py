"""Findings of verify about charts, from the results of helm_chart_info and rancher_state."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.verify import chart_findings, rancher_findings, simulation

FAULT = "chart web 1.0.0: Deployment web/web: 1 of 2 pods are updated and available"
MISSING = "a: a check has no result (boom). Correct that and run playbooks/verify.yml for all hosts."


@pytest.mark.parametrize(("variable", "findings"), [
    ("__verify_chart_status", chart_findings),
    ("__verify_rancher_status", rancher_findings),
])  # fmt: skip
def test_a_fault_and_a_missing_result_are_findings(variable: str, findings: Any) -> None:
    assert findings({"a": {variable: {"findings": []}}}, ["a"]) == []
    assert findings({"a": {variable: {"findings": [FAULT]}}}, ["a"]) == [FAULT]
    assert findings({"a": {variable: {"unreachable": True}}}, ["a"]) == ["a cannot be reached by SSH"]
    assert findings({"a": {variable: {"msg": "boom"}}}, ["a"]) == [MISSING]


def test_simulations_of_charts_are_named() -> None:
    states = {"cert-manager": {"version": "v1.21.2", "simulation": False},
              "rancher": {"version": "2.15.0", "simulation": True}}  # fmt: skip
    results = {"a": {"__verify_chart_status": {"findings": [], "charts": states}}}
    assert simulation(results, [], [], ["a"]) == "Chart rancher 2.15.0 has a simulation."
    assert simulation(results, []) == ""
