"""Apply the last commit that passed in an environment again, unless a version in between cannot go back.

    python -m ci.rollback --environment prod --inventory inventories/prod

exit codes: those of ci.run_playbook; 4 also where there is nothing to go back to, or a version cannot.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ci import run_playbook
from ci.releases import fetch_releases, git, last_passed

REPOSITORY = Path(__file__).resolve().parents[1]
REFUSED = 4


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    variable: str
    runbook: str


IRREVERSIBLE = (
    Component("RKE2", "rke2_version", "restore_etcd"),
    Component("PostgreSQL", "postgresql_version", "restore_postgresql"),
    Component("Ceph", "ceph_version", "upgrade_ceph"),
)
"""Software whose data an older version does not read. `site.yml` fails instead of a downgrade."""


class _Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as texts."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def refusals(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """A sentence for each version that is higher now."""
    return [
        f"{component.name}: {component.variable} is {now[component.variable]}, {then[component.variable]} before, and "
        f"cannot go back. Restore the data as docs/runbooks/{component.runbook}.md describes, or repair it by a commit."
        for component in IRREVERSIBLE
        if component.variable in now and component.variable in then
        if number(now[component.variable]) > number(then[component.variable])
    ]


def versions(inventory: Path) -> dict[str, str]:
    """The versions that an inventory's files declare; those that are templates are skipped."""
    found: dict[str, str] = {}
    names = {component.variable for component in IRREVERSIBLE}
    for path in sorted(inventory.glob("group_vars/**/*.yml")):
        if path.read_bytes().startswith(b"$ANSIBLE_VAULT;"):
            continue
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        values: Iterable[tuple[str, Any]] = content.items() if isinstance(content, dict) else ()
        found |= {name: str(value) for name, value in values if name in names and "{{" not in str(value)}
    return found


def main(arguments: Sequence[str], repository: Path = REPOSITORY) -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.rollback")
    parser.add_argument("--environment", required=True)
    parser.add_argument("--inventory", required=True)
    options = parser.parse_args(arguments)
    head = git(repository, "rev-parse", "HEAD").strip()
    release = last_passed(fetch_releases(repository), options.environment, but=head)
    if release is None:
        print(
            f"{options.environment}: no other commit has passed, there is none to roll back to. Repair it by a commit.",
            file=sys.stderr,
        )
        return REFUSED
    with tempfile.TemporaryDirectory(prefix="slipway-rollback-") as folder:
        checkout = Path(folder) / "project"
        git(repository, "worktree", "add", "--quiet", "--detach", str(checkout), release.commit)
        try:
            messages = refusals(versions(repository / options.inventory), versions(checkout / options.inventory))
            if messages:
                print(f"Nothing has been changed: {release.tag} is not applied.", *messages, sep="\n", file=sys.stderr)
                return REFUSED
            print(f"{options.environment}: applying {release.tag} ({release.commit[:8]})", flush=True)
            os.environ["CI_COMMIT_SHA"] = release.commit
            name = f"rollback-{options.environment}"
            where = ["--inventory", options.inventory, "--project", str(checkout), "--name", name]
            return run_playbook.main(["site.yml", *where])
        finally:
            git(repository, "worktree", "remove", "--force", str(checkout))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
