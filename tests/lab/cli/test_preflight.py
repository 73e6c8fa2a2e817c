"""Every shortage of a machine is one sentence, all are told at once, and looking changes nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab import preflight
from lab.preflight import Machine
from lab.settings import Settings

from .conftest import describe

GOOD = Machine(disks_gb={"/var/lib/slipway/lab": 80.0})

SHORTAGES = [
    (replace(GOOD, user_id=1000), "You are user 1000"),
    (replace(GOOD, distribution="ubuntu", pretty_name="Ubuntu 24.04"), "runs Ubuntu 24.04"),
    (replace(GOOD, release="11", pretty_name="Debian GNU/Linux 11"), "Debian 12 and 13"),
    (replace(GOOD, architecture="aarch64"), "processor is aarch64"),
    (replace(GOOD, memory_gb=3.2), "Only 3.2 GB of memory"),
    (replace(GOOD, disks_gb={"/var/lib/slipway/lab": 4.0}), "Only 4.0 GB of disk are free for /var/lib/slipway/lab"),
    (replace(GOOD, ports_taken={"the cloud's API": 8400}), "Port 8400 (the cloud's API) is taken"),
    (replace(GOOD, slot_holder="other"), "belongs to the lab 'other'"),
    (replace(GOOD, addresses_taken=("198.18.0.1",)), "uses 198.18.0.1 already"),
    (replace(GOOD, missing_features=("The kernel has no loop devices: …",)), "no loop devices"),
]


def test_a_good_machine_has_no_faults() -> None:
    assert preflight.faults(GOOD, Settings()) == []


@pytest.mark.parametrize(("machine", "words"), SHORTAGES, ids=[words for _, words in SHORTAGES])
def test_a_shortage_is_one_sentence(machine: Machine, words: str) -> None:
    (sentence,) = preflight.faults(machine, Settings())
    assert words in sentence
    assert "\n" not in sentence


def test_all_shortages_are_told_at_once() -> None:
    machine = replace(GOOD, user_id=1000, memory_gb=1.0, ports_taken={"the cloud's API": 8400})
    assert len(preflight.faults(machine, Settings())) == 3


def test_the_cloud_alone_needs_less_memory() -> None:
    machine = replace(GOOD, memory_gb=3.2)
    assert preflight.faults(machine, Settings(), site=False) == []


def test_a_lab_that_stands_is_not_asked_for_its_memory_again() -> None:
    assert preflight.faults(replace(GOOD, memory_gb=3.2, lab_stands=True), Settings()) == []


def test_a_port_held_by_another_program_is_seen(
    settings: Settings, asked: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in daemon listens on the API's port (and is a thread, beside which nothing may fork)."""
    monkeypatch.setattr(preflight, "_missing_features", list)
    assert preflight.look(settings).ports_taken == {"the cloud's API": settings.api_port}
    assert preflight.look(settings, ours_runs=True).ports_taken == {}


def test_another_lab_in_the_same_slot_is_seen(settings: Settings) -> None:
    describe(Settings("other", settings.slot, settings.state_root, settings.cache_root), name="other")
    assert preflight.look(settings).slot_holder == "other"


def test_looking_changes_nothing(settings: Settings) -> None:
    preflight.look(settings)
    assert not settings.state_root.exists()
    assert not settings.cache_root.exists()


def test_the_machines_own_python_can_ask(settings: Settings) -> None:
    """`lab/setup.sh` asks with Debian's Python before there is a virtual environment."""
    debian = Path("/usr/bin/python3")
    program = str(debian) if debian.exists() else sys.executable
    done = subprocess.run(
        [program, "-B", "-I", preflight.__file__], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1)
    assert all(line.startswith("slipway: ") for line in done.stderr.splitlines()), done.stderr
