"""Runs every test of the platform once, within a time budget. Called by `make test`.

Independent layers run in parallel; the first failure stops all. The labs have their own names and addresses, so that
they can run beside a developer's lab, and are removed at the end. Long and repeated tests are in `make soak`.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lab import mirror
from lab.kubernetes import build
from lab.settings import Settings
from tests.support import report
from tests.support.cpu import Sampler, Usage
from tests.support.labs import TEST, TEST2
from tests.support.tracks import Layer, Plan, Result, interrupt_on_signals, print_failures, run

LOGS = Path("/var/log/slipway/test")
"""The complete output of each track of the last run; terminals and CI often truncate it."""
BUDGET_SECONDS = 2_400
"""For all layers, on 2 cores, with the programs of Kubernetes in the cache and nothing else."""
BUILD_SECONDS = 600
"""Added to the budget while they are not: the first `lab up` builds them, beside layers that need no lab."""


@dataclass(frozen=True)
class Stage:
    name: str
    plans: tuple[Plan, ...]


SCENARIOS = "provision check load_balancer load_balancer_acme load_balancer_passthrough"
"""Scenarios that the site does not cover; the tests of other roles run on the site, their scenarios in `make soak`."""

CLUSTER = (
    "lab up --only-cloud && SLIPWAY_TEST_INVENTORY=tests/cluster/lab pytest -q -m 'not soak' tests/cluster && lab down"
)

STAGES = (
    # Images are bound by network and disk; lint and unit tests use the CPU meanwhile, beside the build of Kubernetes.
    # The labs of the second stage find both in the cache.
    Stage(
        "code, images",
        (
            Plan("lint", TEST, (Layer("lint", "make --no-print-directory lint", 250),)),
            Plan(
                "unit",
                TEST,
                (
                    Layer(
                        "static, unit and lint rule tests",
                        "pytest -q -n 2 tests/static tests/unit tests/ansible_lint",
                        350,
                    ),
                ),
            ),
            Plan("test", TEST, (Layer("lab: images, local cloud", "lab up --only-cloud", 240),)),
        ),
    ),
    # These mostly wait for hosts to boot and services to converge.
    Stage(
        "site, roles, cloud",
        (
            Plan("test", TEST, (Layer("platform: the whole site", "pytest -q -m 'not soak' tests/platform", 1_700),)),
            Plan(
                "test2",
                TEST2,
                (
                    # First, beside the build of the site: later tests there measure outages.
                    Layer("cluster: upgrade and restores", CLUSTER, 1_200),
                    Layer("local cloud and GitLab with official clients", "pytest -q -m 'not real' tests/lab", 500),
                    Layer("hosts, networks and volumes", "pytest -q -m real tests/lab", 300),
                    Layer("molecule", f"lab up --only-cloud && python -m tests.molecule {SCENARIOS}", 350),
                ),
            ),
        ),
    ),
)


def build_seconds(cache: Path) -> int:
    """The time that the build of Kubernetes adds: none when its programs are in the cache."""
    return 0 if (cache / "kubernetes" / build.content_hash(mirror.VERSIONS)).exists() else BUILD_SECONDS


def with_build(stage: Stage, seconds: int) -> Stage:
    """A stage whose layers share the machine with the build."""
    return replace(
        stage,
        plans=tuple(
            replace(
                plan,
                layers=tuple(replace(layer, budget_seconds=layer.budget_seconds + seconds) for layer in plan.layers),
            )
            for plan in stage.plans
        ),
    )


def remove_labs() -> None:
    for lab in (TEST, TEST2):
        lab.down()


def print_report(
    results: list[Result], usages: list[tuple[str, float, Usage]], seconds: float, budget_seconds: int
) -> None:
    print("", *report.layers(results, seconds, budget_seconds), sep="\n")
    print("", *report.stages(usages), sep="\n")
    print("\nslowest tests", *report.slowest(LOGS / "junit"), sep="\n", flush=True)


def main() -> int:
    started = time.monotonic()
    results: list[Result] = []
    usages: list[tuple[str, float, Usage]] = []
    interrupt = interrupt_on_signals()
    building = build_seconds(Settings.from_environment().cache_dir)
    first, *others = STAGES
    remove_labs()
    shutil.rmtree(LOGS, ignore_errors=True)
    (LOGS / "junit").mkdir(parents=True)
    try:
        for stage in (with_build(first, building), *others):
            stage_started = time.monotonic()
            with Sampler() as sampler:
                tracks = run(stage.plans, LOGS, interrupt)
            usages.append((stage.name, time.monotonic() - stage_started, sampler.usage()))
            results += [result for track in tracks for result in track.results]
            if any(result.outcome != "passed" for result in results) or interrupt.is_set():
                print_report(results, usages, time.monotonic() - started, BUDGET_SECONDS + building)
                print_failures(tracks)
                return 1
    finally:
        remove_labs()
    print_report(results, usages, time.monotonic() - started, BUDGET_SECONDS + building)
    print("\n=== all layers passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
