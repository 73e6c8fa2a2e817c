"""What every role promises, proved on the site by the tests of the roles' scenarios (molecule/<role>/tests).

The scenarios themselves, which build each role from nothing on machines of its own, are in `make soak PART=molecule`
and `make role R=<role>`. Roles that the site has in one mode only (load_balancer) are tested by their scenarios alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.platform.conftest import REPOSITORY, play

ROLES = ("base", "ceph", "postgresql", "rke2", "verify")
JUNIT = os.environ.get("SLIPWAY_TEST_JUNIT")


@pytest.fixture(scope="module")
def inventory(description: dict[str, Any]) -> Path:
    """The site's inventory as testinfra reads it, with every value written out."""
    run = play(playbook="molecule/default/inventory.yml")
    assert run.code == 0, run.output[-6000:]
    return Path(description["secrets_path"]).parent / "ansible/hosts.yml"


@pytest.mark.parametrize("role", ROLES)
def test_the_role_holds_what_it_promises(inventory: Path, role: str) -> None:
    report = [f"--junitxml={JUNIT}/site-{role}.xml"] if JUNIT else []
    done = subprocess.run(
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
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
