"""Require that a commit passed in one environment before it is applied to the next.

    python -m ci.promotion <environment that it must have passed>

exit codes: 0 the commit may be promoted, 4 it may not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ci.releases import Release, fetch_releases

REPOSITORY = Path(__file__).resolve().parents[1]
REFUSED = 4


def refusal(commit: str, environment: str, releases: Iterable[Release]) -> str | None:
    """Why a commit may not be promoted, in one sentence; None if it may."""
    passed = sorted(release for release in releases if release.environment == environment)
    if any(release.commit == commit for release in passed):
        return None
    newest = f"the last one that passed is {passed[-1].commit[:8]} ({passed[-1].tag})" if passed else "none passed yet"
    return (
        f"{commit[:8]}: has not passed in {environment}, {newest}. Run the pipeline of this commit until the job "
        f"passed-{environment} succeeds."
    )


def main(arguments: Sequence[str]) -> int:
    [environment] = arguments
    commit = os.environ["CI_COMMIT_SHA"]
    if message := refusal(commit, environment, fetch_releases(REPOSITORY)):
        print(message, file=sys.stderr)
        return REFUSED
    print(f"{commit[:8]}: passed in {environment}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
