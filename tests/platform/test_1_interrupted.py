"""The next run completes a run that was killed at any task."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.platform.conftest import INVENTORY, OUTPUTS, REPOSITORY, kill, play

KILLS = int(os.environ.get("SLIPWAY_TEST_KILLS", "1"))
"""How often the first build is killed: once while the Ceph cluster is bootstrapped, then at random moments between the
first seconds of provisioning and the joins of the Kubernetes cluster."""

BOOTSTRAP_SECONDS = 8.0
"""Ansible prints the task before cephadm starts; this much later a monitor runs and the bootstrap is incomplete."""
LONGEST_SECONDS = 150.0
SEED = int(os.environ.get("SLIPWAY_TEST_SEED", "20261121"))
LONGEST_BUILD_SECONDS = 1800


def bootstrap_lines() -> list[str]:
    """Lines of the output, in order, when the bootstrap of the platform's Ceph cluster starts."""
    (play_name,) = [entry["name"] for entry in yaml.safe_load((REPOSITORY / "playbooks/ceph.yml").read_text())]
    tasks = yaml.safe_load((REPOSITORY / "roles/ceph/tasks/bootstrap.yml").read_text())
    (task_name,) = [
        task["name"] for task in tasks if "bootstrap" in task.get("ansible.builtin.command", {}).get("argv", [])
    ]
    return [f"PLAY [{play_name}]", f"TASK [ceph : {task_name}]"]


def shows(output: str, lines: list[str]) -> bool:
    """Whether the lines are in the output, each after the one before it."""
    position = 0
    for line in lines:
        position = output.find(line, position)
        if position < 0:
            return False
    return True


def run_and_kill(log: Path, moment: Callable[[float], bool]) -> bool:
    """Start the whole site and kill -9 all its processes at the moment. False when it finished before."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["ansible-playbook", "site.yml", "-i", INVENTORY],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            seconds = time.monotonic() - started
            assert seconds < LONGEST_BUILD_SECONDS, log.read_text()[-6000:]
            if moment(seconds):
                return True
            time.sleep(0.2)
    finally:
        kill(process)
    return False


def test_a_build_killed_during_bootstrap_and_at_random_converges(
    description: dict[str, object],
) -> None:
    shutil.rmtree(OUTPUTS, ignore_errors=True)
    OUTPUTS.mkdir(parents=True)
    log, lines = OUTPUTS / "killed.log", bootstrap_lines()
    shown_after: list[float] = []

    def bootstrapping(seconds: float) -> bool:
        if not shown_after and shows(log.read_text(), lines):
            shown_after.append(seconds)
        return bool(shown_after) and seconds > shown_after[0] + BOOTSTRAP_SECONDS

    assert run_and_kill(log, bootstrapping), log.read_text()[-6000:]
    dice = random.Random(SEED)
    moments: list[float] = []
    builds = 1
    while len(moments) < KILLS - 1:
        after = dice.uniform(3.0, LONGEST_SECONDS)
        if run_and_kill(log, lambda seconds, after=after: seconds > after):
            moments.append(after)
            continue
        # The build finished first: a later kill would test nothing, so start another build.
        destroyed = play("-e", "op_destroy_environment=lab", playbook="playbooks/operations/destroy.yml")
        assert destroyed.code == 0, destroyed.excerpt
        builds += 1
    killed = [f"{shown_after[0]:.0f} s (bootstrap)", *(f"{seconds:.0f} s" for seconds in moments)]
    print(f"killed {KILLS} runs in {builds} builds, after {', '.join(killed)}")
    started = time.monotonic()
    run = play("--diff")  # test_2_site.py searches the output for secrets
    print(f"the run after them took {time.monotonic() - started:.0f} s")
    assert run.code == 0, run.excerpt
