"""Runs Molecule scenarios on hosts of the running lab: all scenarios, or those named as arguments.

Scenario `default` creates the hosts that the scenarios need, and removes them at the end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.labs import REPOSITORY

STATE_ROOT = "/var/lib/slipway"
NODES = ("load_balancer", "rke2_server", "rke2_agent")
MACHINES: dict[str, tuple[str, ...]] = {
    "base": (*NODES, "postgresql"),
    "ceph": ("ceph",),
    "ceph_csi": NODES,
    "cert_manager": NODES,
    "check": (),
    "gitlab_runner": ("gitlab_runner", "load_balancer"),
    "load_balancer": ("load_balancer",),
    "load_balancer_acme": ("load_balancer",),
    "load_balancer_passthrough": ("load_balancer",),
    "postgresql": ("postgresql", "rke2_server", "load_balancer"),
    "provision": (),
    "rancher": NODES,
    "rke2": NODES,
    "s3_snapshot": ("object_storage", "rke2_server[0]"),
    "verify": (*NODES, "ceph", "gitlab_runner", "postgresql"),
}
"""Scenario → groups of molecule/inventory whose hosts it needs; some create their own hosts, or need none."""


def limit(scenarios: Sequence[str]) -> str:
    """Value of Ansible's --limit, so that only the hosts that the scenarios need are created."""
    groups = {group for name in scenarios for group in MACHINES[name]}
    return ",".join([*sorted(groups), "localhost"])


def command(scenarios: Sequence[str], *options: str) -> list[str]:
    """The command of Molecule. Not with --all, which includes scenario `default`, which has nothing to converge."""
    unknown = [name for name in scenarios if name not in MACHINES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: unknown scenario. Name some of: {', '.join(MACHINES)}.")
    names = [word for name in scenarios or MACHINES for word in ("--scenario-name", name)]
    return ["molecule", "test", "--report", *options, *names]


def environment(scenarios: Sequence[str], given: Mapping[str, str], state: str = "run") -> dict[str, str]:
    """Environment variables of Molecule; its state is in the folder of the lab, and is removed with the lab."""
    lab = Path(given.get("SLIPWAY_STATE_ROOT", STATE_ROOT), given.get("SLIPWAY_LAB", "lab"))
    added = {
        "MOLECULE_EPHEMERAL_DIRECTORY": str(lab / "molecule" / state),
        "SLIPWAY_MOLECULE_LIMIT": limit(scenarios or list(MACHINES)),
    }
    if (token := lab / "gitlab_token").exists():
        added["GITLAB_TOKEN"] = token.read_text().strip()
    if junit := given.get("SLIPWAY_TEST_JUNIT"):
        # Molecule runs pytest once per scenario, and pytest expands the variable.
        report = f"--junitxml={junit}/molecule-$MOLECULE_SCENARIO_NAME.xml"
        added["PYTEST_ADDOPTS"] = f"{given.get('PYTEST_ADDOPTS', '')} {report}".strip()
    return {**given, **added}


def main(scenarios: Sequence[str]) -> int:
    try:
        words = command(scenarios)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    os.chdir(REPOSITORY)
    os.execvpe(words[0], words, environment(scenarios, os.environ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
