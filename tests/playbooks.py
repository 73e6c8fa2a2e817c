"""Runs a playbook for a test, with Ansible's state in the folder of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run_playbook(
    folder: Path, inventory: Path | str, playbook: Path | str, *options: str, config: Path = REPOSITORY / "ansible.cfg"
) -> tuple[int, str]:
    """Exit code and complete output; paths are relative to the repository."""
    run = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), *options, str(playbook)],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts"),
            "SLIPWAY_ARTIFACTS": str(folder / "artifacts"),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    return run.returncode, run.stdout + run.stderr
