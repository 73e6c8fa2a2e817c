"""Runs tools of this machine (ip, nft, podman, losetup) with a timeout and readable errors."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.machines.base import MachineError

TIMEOUT_SECONDS = 120


class CommandError(MachineError):
    """A command failed."""

    def __init__(self, argv: Sequence[str], output: str, returncode: int) -> None:
        self.argv = tuple(argv)
        self.output = output
        self.returncode = returncode
        reason = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")
        super().__init__(f"`{shlex.join(argv)[:200]}` failed with exit code {returncode}: {reason}")


def run(
    argv: Sequence[str],
    stdin: str | None = None,
    timeout: float = TIMEOUT_SECONDS,
    cwd: Path | None = None,
) -> str:
    """Run and return standard output; raise `CommandError` when it fails or takes too long."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd)
    except FileNotFoundError as error:
        raise MachineError(f"{argv[0]} is not installed on this machine. Run `make setup`.") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"`{shlex.join(argv)[:200]}` timed out after {timeout:.0f} seconds") from error
    if done.returncode:
        raise CommandError(argv, done.stderr + ("" if done.stderr.strip() else done.stdout), done.returncode)
    return done.stdout


def succeeds(argv: Sequence[str], stdin: str | None = None) -> bool:
    """Whether the command exits with 0."""
    try:
        run(argv, stdin)
    except CommandError:
        return False
    return True
