"""Findings of verify about GitLab Runner, from what roles/verify/files/runner.sh printed on its hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.filter.verify import runner_findings, simulation

HEALTHY = "== service 0\n19.3.0-simulation\n== release 0\n== tokens 0\n== firewall 0\n== prune 0\n"
AGAIN = "Correct that and run playbooks/verify.yml for all hosts."


def results(**status: Any) -> dict[str, Any]:
    return {"a": {"__verify_runner_status": status}}


@pytest.mark.parametrize(
    ("status", "findings"),
    [
        ({"stdout": HEALTHY}, []),
        (
            {"stdout": HEALTHY.replace("== tokens 0", "ERROR: Verifying runner... is removed\n== tokens 1")},
            ["GitLab Runner on a: the server does not accept its tokens (ERROR: Verifying runner... is removed)"],
        ),
        (
            {"stdout": HEALTHY.replace("== service 0", "== service 3").replace("== firewall 0", "== firewall 1")},
            [
                "GitLab Runner on a: the service gitlab-runner does not run (exit code 3)",
                "GitLab Runner on a: the firewall of build jobs is not loaded (exit code 1)",
            ],
        ),
        (
            {"stdout": HEALTHY.replace("== prune 0\n", "")},
            ["GitLab Runner on a: the timer gitlab-runner-prune does not run (the check did not run)"],
        ),
        ({"unreachable": True}, ["a cannot be reached by SSH"]),
        ({"msg": "boom"}, [f"a: a check has no result (boom). {AGAIN}"]),
    ],
)
def test_findings(status: dict[str, Any], findings: list[str]) -> None:
    assert runner_findings(results(**status), ["a"]) == findings


def test_a_host_without_a_result_is_a_finding() -> None:
    assert runner_findings({}, ["a"]) == [f"a: a check has no result (it was not part of this run). {AGAIN}"]


def test_the_simulation_declares_itself_once() -> None:
    hostvars = results(stdout=HEALTHY) | {"b": results(stdout=HEALTHY)["a"]}
    assert simulation(hostvars, [], ["a", "b"]) == "GitLab Runner is a simulation (19.3.0-simulation)."
    assert simulation(results(stdout=HEALTHY.replace("-simulation", "")), [], ["a"]) == ""
