"""The labs of the tests: each has its own name and slot, so that they run beside a developer's lab."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Lab:
    name: str
    slot: int

    def environment(self) -> dict[str, str]:
        """Environment variables of commands that use this lab."""
        return {
            **os.environ,
            "PATH": f"{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}",
            "ANSIBLE_FORCE_COLOR": "0",
            "PY_COLORS": "0",
            "NO_COLOR": "1",
            "SLIPWAY_LAB": self.name,
            "SLIPWAY_LAB_SLOT": str(self.slot),
            # Hosts of different labs have the same names.
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(REPOSITORY / f".ansible/facts-{self.name}"),
        }

    def down(self) -> None:
        """Remove the lab; an earlier run that was killed may have left one."""
        done = subprocess.run(
            ["lab", "down"],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"lab down failed for {self.name}:\n{done.stdout}")


TEST, TEST2, SOAK, ROLE = Lab("test", 1), Lab("test2", 2), Lab("soak", 3), Lab("role", 4)
