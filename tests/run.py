"""Every promise of the platform, proved once, within a budget of time. Called by `make test`.

What can run side by side does; the first failure ends everything. The labs have names and addresses of their own, so
that they can run beside a person's lab, and are removed at the end. What is long or repeated is in `make soak`.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support import report
from tests.support.cpu import Sampler, Usage
from tests.support.labs import TEST, TEST2
from tests.support.tracks import Layer, Plan, Result, end_on_signals, print_ends, run

LOGS = Path("/var/log/slipway/test")
"""Whole output of each track of the last run, for what is printed is often cut."""
BUDGET_SECONDS = 2_400
"""For everything, on 2 cores and from empty caches."""


@dataclass(frozen=True)
class Stage:
    name: str
    plans: tuple[Plan, ...]


SCENARIOS = "provision check load_balancer load_balancer_acme load_balancer_passthrough"
"""What the site does not cover; the tests of the other roles run on the site, their scenarios in `make soak`."""

STAGES = (
    # Images are mostly downloads and writes to the disk; the code is read meanwhile.
    Stage(
        "code, images",
        (
            Plan("lint", TEST, (Layer("lint", "make --no-print-directory lint", 200),)),
            Plan(
                "unit",
                TEST,
                (
                    Layer(
                        "static, unit and lint rule tests",
                        "pytest -q -n 2 tests/static tests/unit tests/ansible_lint",
                        200,
                    ),
                ),
            ),
            Plan("test", TEST, (Layer("lab: images, local cloud", "lab up --only-cloud", 240),)),
        ),
    ),
    # Most of their time is waiting: hosts boot, services converge.
    Stage(
        "site, roles, cloud",
        (
            Plan("test", TEST, (Layer("platform: the whole site", "pytest -q -m 'not soak' tests/platform", 2_100),)),
            Plan(
                "test2",
                TEST2,
                (
                    Layer("local cloud with official clients", "pytest -q -m 'not real' tests/lab", 250),
                    Layer("hosts, networks and volumes", "pytest -q -m real tests/lab", 300),
                    Layer("molecule", f"lab up --only-cloud && python -m tests.molecule {SCENARIOS}", 600),
                ),
            ),
        ),
    ),
)


def down() -> None:
    for lab in (TEST, TEST2):
        lab.down()


def print_report(results: list[Result], usages: list[tuple[str, float, Usage]], seconds: float) -> None:
    print("", *report.layers(results, seconds, BUDGET_SECONDS), sep="\n")
    print("", *report.stages(usages), sep="\n")
    print("\nslowest tests", *report.slowest(LOGS / "junit"), sep="\n", flush=True)


def main() -> int:
    started = time.monotonic()
    results: list[Result] = []
    usages: list[tuple[str, float, Usage]] = []
    interrupt = end_on_signals()
    down()
    shutil.rmtree(LOGS, ignore_errors=True)
    (LOGS / "junit").mkdir(parents=True)
    try:
        for stage in STAGES:
            began = time.monotonic()
            with Sampler() as sampler:
                tracks = run(stage.plans, LOGS, interrupt)
            usages.append((stage.name, time.monotonic() - began, sampler.usage()))
            results += [result for track in tracks for result in track.results]
            if any(result.outcome != "passed" for result in results) or interrupt.is_set():
                print_report(results, usages, time.monotonic() - started)
                print_ends(tracks)
                return 1
    finally:
        down()
    print_report(results, usages, time.monotonic() - started)
    print("\n=== all layers passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
