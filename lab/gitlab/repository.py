"""A project's bare repository on this machine, which runners clone by git's dumb HTTP protocol."""

from __future__ import annotations

import subprocess
from pathlib import Path


class RepositoryError(Exception):
    """What git rejected, in one sentence."""


def git(repository: Path, *arguments: str) -> str:
    process = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        raise RepositoryError(f"git {arguments[0]}: {' '.join(process.stderr.split())}")
    return process.stdout.strip()


def publish(bare: Path, source: Path, branch: str) -> tuple[str, str]:
    """Push the commit that is checked out in `source`; returns the commit before and now."""
    if not bare.exists():
        bare.mkdir(parents=True, mode=0o700)
        git(bare, "init", "--quiet", "--bare", "--initial-branch", branch)
    reference = f"refs/heads/{branch}"
    before = git(bare, "for-each-ref", "--format=%(objectname)", reference)
    git(source, "push", "--quiet", "--force", str(bare), f"HEAD:{reference}")
    # Files that the dumb protocol reads.
    git(bare, "update-server-info")
    return before, git(bare, "rev-parse", reference)


def create_tag(bare: Path, name: str, commit: str) -> None:
    git(bare, "check-ref-format", f"refs/tags/{name}")
    git(bare, "tag", "--", name, commit)
    git(bare, "update-server-info")


def changed_paths(bare: Path, before: str, now: str) -> set[str] | None:
    """The files that a push changed; None for a new branch, as GitLab compares it with nothing."""
    if not before:
        return None
    return set(git(bare, "diff", "--name-only", f"{before}..{now}").splitlines())
