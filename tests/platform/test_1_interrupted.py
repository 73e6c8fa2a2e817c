"""A run killed anywhere leaves nothing that the next run cannot finish."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time

from tests.platform.conftest import INVENTORY, REPOSITORY, kill, play

KILLS = int(os.environ.get("SLIPWAY_TEST_KILLS", "4"))
"""How often the first build is killed. Each kill comes at a moment of its own, so that together they reach from the
first seconds of provisioning to the founding of the storage and the joins of the cluster."""

LONGEST_SECONDS = 150.0
SEED = int(os.environ.get("SLIPWAY_TEST_SEED", "20261121"))


def run_and_kill(seconds: float) -> bool:
    """Start the whole site, kill -9 everything of it after so many seconds. True when it was still running then."""
    process = subprocess.Popen(
        ["ansible-playbook", "site.yml", "-i", INVENTORY],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    kill(process)
    return True


def test_a_build_killed_at_random_points_converges(description: dict[str, object]) -> None:
    dice = random.Random(SEED)
    moments: list[float] = []
    builds = 1
    while len(moments) < KILLS:
        seconds = dice.uniform(3.0, LONGEST_SECONDS)
        if run_and_kill(seconds):
            moments.append(seconds)
            continue
        # It was finished first: a kill from here on would prove nothing, so another build begins.
        gone = play("-e", "op_destroy_environment=lab", playbook="playbooks/operations/destroy.yml")
        assert gone.code == 0, gone.output[-6000:]
        builds += 1
    print(f"killed {KILLS} runs in {builds} builds, after {', '.join(f'{seconds:.0f} s' for seconds in moments)}")
    began = time.monotonic()
    run = play()
    print(f"the run after them took {time.monotonic() - began:.0f} s")
    assert run.code == 0, run.output[-6000:]
