"""Every fault of a machine is one message, all are listed, and the inspection changes nothing."""

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

FAULTS = [
    (replace(GOOD, user_id=1000), "User 1000"),
    (replace(GOOD, distribution="ubuntu", pretty_name="Ubuntu 24.04"), "Operating system Ubuntu 24.04"),
    (replace(GOOD, release="11", pretty_name="Debian GNU/Linux 11"), "Debian 12 or 13"),
    (replace(GOOD, architecture="aarch64"), "Processor aarch64"),
    (replace(GOOD, memory_gb=3.2), "Memory: 3.2 GB"),
    (replace(GOOD, disks_gb={"/var/lib/slipway/lab": 4.0}), "/var/lib/slipway/lab: 4.0 GB of disk are free"),
    (replace(GOOD, ports_taken={"the cloud's API": 8400}), "Port 8400 (the cloud's API): in use"),
    (replace(GOOD, slot_owner="other"), "in use by the lab 'other'"),
    (replace(GOOD, addresses_taken=("198.18.0.1",)), "Address 198.18.0.1: already used"),
    (replace(GOOD, missing_features=("Kernel: no loop devices, …",)), "no loop devices"),
]


def test_a_good_machine_has_no_faults() -> None:
    assert preflight.faults(GOOD, Settings()) == []


@pytest.mark.parametrize(("machine", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_fault_is_one_message(machine: Machine, words: str) -> None:
    (fault,) = preflight.faults(machine, Settings())
    assert words in fault
    assert "\n" not in fault


def test_all_faults_are_listed() -> None:
    machine = replace(GOOD, user_id=1000, memory_gb=1.0, ports_taken={"the cloud's API": 8400})
    assert len(preflight.faults(machine, Settings())) == 3


def test_only_the_cloud_requires_less_memory() -> None:
    machine = replace(GOOD, memory_gb=3.2)
    assert preflight.faults(machine, Settings(), site=False) == []


def test_an_existing_lab_requires_less_memory() -> None:
    assert preflight.faults(replace(GOOD, memory_gb=3.2, lab_exists=True), Settings()) == []


def test_a_port_of_another_program_is_in_use(
    settings: Settings, requests: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test double listens on the API's port; it is a thread, and a process with threads must not fork."""
    monkeypatch.setattr(preflight, "_missing_features", list)
    assert preflight.inspect_machine(settings).ports_taken == {"the cloud's API": settings.api_port}
    assert preflight.inspect_machine(settings, daemon_running=True).ports_taken == {}


def test_another_lab_owns_the_slot(settings: Settings) -> None:
    describe(Settings("other", settings.slot, settings.state_root, settings.cache_root), name="other")
    assert preflight.inspect_machine(settings).slot_owner == "other"


def test_inspection_changes_nothing(settings: Settings) -> None:
    preflight.inspect_machine(settings)
    assert not settings.state_root.exists()
    assert not settings.cache_root.exists()


def test_preflight_runs_with_the_python_of_debian(settings: Settings) -> None:
    """`lab/setup.sh` runs it with Debian's Python before there is a virtual environment."""
    debian = Path("/usr/bin/python3")
    program = str(debian) if debian.exists() else sys.executable
    done = subprocess.run(
        [program, "-B", "-I", preflight.__file__], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1)
    assert all(line.startswith("slipway: ") for line in done.stderr.splitlines()), done.stderr
