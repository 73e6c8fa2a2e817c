"""Commits that passed in an environment: protected tags passed/<environment>/<UTC time>.

    python -m ci.releases <environment>

sets the tag for the commit of the job. Promotion and rollback read these tags (ci.promotion, ci.rollback).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ci.gitlab import GitlabError, Project

PREFIX = "passed"


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """Releases of one environment sort by time."""

    environment: str
    time: str
    commit: str

    @property
    def tag(self) -> str:
        return f"{PREFIX}/{self.environment}/{self.time}"


def tag_name(environment: str, now: datetime) -> str:
    return f"{PREFIX}/{environment}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def parse_tags(lines: Iterable[str]) -> list[Release]:
    """Lines of `commit tag`; other tags are skipped."""
    releases = []
    for line in lines:
        commit, _, tag = line.partition(" ")
        prefix, _, rest = tag.partition("/")
        environment, _, time = rest.rpartition("/")
        if prefix == PREFIX and environment and time:
            releases.append(Release(environment, time, commit))
    return sorted(releases)


def last_passed(releases: Iterable[Release], environment: str, *, but: str) -> Release | None:
    """The newest release of an environment that is another commit."""
    found = [release for release in releases if release.environment == environment and release.commit != but]
    return max(found, default=None)


def git(repository: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, errors="replace", env=environment, timeout=600
    ).stdout


def remote(environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Name of the remote of the job's project, and git's environment.

    The runner need not leave its credentials in the clone. The job's token gets to git by a helper, since the arguments
    of git's processes contain the URL.
    """
    if "CI_JOB_TOKEN" not in environment:
        return "origin", dict(environment)
    name = "slipway-job"
    settings = {
        f"remote.{name}.url": f"{environment['CI_SERVER_URL']}/{environment['CI_PROJECT_PATH']}.git",
        "credential.helper": '!f() { echo username=gitlab-ci-token; echo "password=$CI_JOB_TOKEN"; }; f',
    }
    found = {**environment, "GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings.items()):
        found |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    if certificate := environment.get("CI_SERVER_TLS_CA_FILE"):
        found["GIT_SSL_CAINFO"] = certificate
    return name, found


def fetch_releases(repository: Path) -> list[Release]:
    """The releases that GitLab knows now; a job's clone has no tags that were set after it."""
    name, environment = remote(os.environ)
    tags = f"+refs/tags/{PREFIX}/*:refs/tags/{PREFIX}/*"
    git(repository, "fetch", "--quiet", "--force", name, tags, environment=environment)
    # An annotated tag has the commit in *objectname.
    form = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname:strip=2)"
    return parse_tags(git(repository, "for-each-ref", f"--format={form}", f"refs/tags/{PREFIX}").splitlines())


def main(arguments: Sequence[str]) -> int:
    [environment] = arguments
    name = tag_name(environment, datetime.now(UTC))
    try:
        Project(os.environ).call("POST", "repository/tags", tag_name=name, ref=os.environ["CI_COMMIT_SHA"])
    except GitlabError as error:
        print(f"{name}: not set. {error}", file=sys.stderr)
        return 1
    print(f"{name}: set for {os.environ['CI_COMMIT_SHA']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
