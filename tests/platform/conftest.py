"""Tests of the whole platform in a lab, built once by the same site.yml as production.

`SLIPWAY_LAB` and `SLIPWAY_LAB_SLOT` name the lab; `lab up --only-cloud` must have started its cloud. Files run in the
order of their names: test_1_interrupted.py builds the site, through a kill, numbered files need it whole, the others
break hosts and disks and end with a whole site. test_z_destroy.py is the last: no site is left after it. Tests marked
`soak` are long or repeated, run by `make soak` alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from lab.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("SLIPWAY_TEST_INVENTORY", "inventories/lab")
"""Another one for tests of a part of the platform (tests/cluster)."""
ARTIFACTS = REPOSITORY / "artifacts/test" / os.environ.get("SLIPWAY_LAB", "lab") / "lab"
"""Reports of the tests' runs in this lab, by the environment's name."""
OUTPUTS = ARTIFACTS / "output"
"""Output of each run since the first build; test_2_site.py searches it for secrets."""


@dataclass(frozen=True)
class Run:
    """One finished ansible-playbook: exit code, output and run report."""

    code: int
    output: str
    report: dict[str, Any]

    @property
    def text(self) -> str:
        """The output on one line: Ansible wraps messages."""
        return " ".join(self.output.split())

    @property
    def excerpt(self) -> str:
        """The failed tasks, or the changed ones of a run without a failure, and the end: for the message of a test."""
        result = "changed" if self.code == 0 else "fatal|failed"
        tasks = re.split(r"(?m)^(?=(?:TASK|PLAY|RUNNING HANDLER) )", self.output)
        shown = [task[:2000] for task in tasks if re.search(rf"(?m)^(?:{result}): ", task)]
        return "\n".join([*shown[:5], self.output[-2000:]])

    @property
    def changed(self) -> dict[str, int]:
        """Host → changed tasks, hosts without a change left out."""
        return {host: counts["changed"] for host, counts in self.report["hosts"].items() if counts["changed"]}


def reports() -> set[Path]:
    return set(ARTIFACTS.glob("*/run.json"))


def play(*arguments: str, playbook: str = "site.yml", inventory: Path | str = INVENTORY) -> Run:
    """Run a playbook on the lab, to its end."""
    before = reports()
    done = subprocess.run(
        ["ansible-playbook", playbook, "-i", str(inventory), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "SLIPWAY_ARTIFACTS": str(ARTIFACTS.parent)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=1800,
    )
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    (OUTPUTS / f"{time.time_ns()}.log").write_text(done.stdout)
    new = sorted(reports() - before)
    report = json.loads(new[-1].read_text()) if new else {}
    return Run(done.returncode, done.stdout, report)


def declare(folder: Path, hosts: dict[str, Any]) -> None:
    """The lab's inventory with other hosts. Its folder has the environment's name."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    for name in ("group_vars", "hcloud.yml"):
        if not (folder / name).exists():
            (folder / name).symlink_to(REPOSITORY / INVENTORY / name)


def declared() -> dict[str, Any]:
    """The hosts of the lab."""
    return dict(yaml.safe_load((REPOSITORY / INVENTORY / "hosts.yml").read_text()))


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run and all its processes, as a power cut would."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def family(ancestor: int) -> list[int]:
    """A process and its descendants: Ansible's workers are session leaders and would survive it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    pids = [ancestor]
    for pid in pids:
        pids += children.get(pid, [])
    return pids


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.from_environment()


@pytest.fixture(scope="session")
def description(settings: Settings) -> dict[str, Any]:
    """The lab's lab.json; the tests end here when no lab runs."""
    if not settings.description.exists():
        pytest.exit(f"no lab named {settings.name} runs here; start it with: lab up --only-cloud", returncode=1)
    return dict(json.loads(settings.description.read_text()))


@pytest.fixture(scope="session")
def cloud(description: dict[str, Any]) -> Client:
    return Client(token=description["token"], api_endpoint=description["api_endpoint"], poll_interval=0.2)
