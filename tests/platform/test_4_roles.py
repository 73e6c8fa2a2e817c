"""The behaviour tests of the roles' scenarios (molecule/<role>/tests), run on the site.

The scenarios themselves, which build each role on new machines, are in `make soak PART=molecule`
and `make role R=<role>`. Roles that the site has in one mode only (load_balancer) are tested by their scenarios alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.platform.conftest import REPOSITORY, play

SIDE_BY_SIDE = ("base", "ceph", "ceph_csi", "cert_manager", "gitlab_runner", "rancher", "rke2")
"""Most of their time is waiting for hosts."""
ALONE = ("postgresql", "verify")
"""Tests that probe ports which the tests of base open temporarily, and that stop a node."""
JUNIT = os.environ.get("SLIPWAY_TEST_JUNIT")
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def inventory(description: dict[str, Any]) -> Path:
    """The site's inventory as testinfra reads it, with every value written out."""
    run = play(playbook="molecule/default/inventory.yml")
    assert run.code == 0, run.excerpt
    return Path(description["secrets_path"]).parent / "ansible/hosts.yml"


def run_tests(role: str, inventory: Path) -> Done:
    report = [f"--junitxml={JUNIT}/site-{role}.xml"] if JUNIT else []
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--color=no", *report),
            *(f"molecule/{role}/tests", f"--ansible-inventory={inventory}"),
        ],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def started(inventory: Path) -> Iterator[dict[str, Future[Done]]]:
    with ThreadPoolExecutor() as pool:
        yield {role: pool.submit(run_tests, role, inventory) for role in SIDE_BY_SIDE}


def require_passed(done: Done) -> None:
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("role", SIDE_BY_SIDE)
def test_the_role_behaves_on_the_site(started: dict[str, Future[Done]], role: str) -> None:
    require_passed(started[role].result())


@pytest.mark.parametrize("role", ALONE)
def test_the_role_behaves_on_the_site_alone(inventory: Path, role: str) -> None:
    require_passed(run_tests(role, inventory))
