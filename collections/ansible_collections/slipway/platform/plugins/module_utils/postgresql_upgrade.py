"""The plan of an upgrade of PostgreSQL, or the faults that prevent it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .postgresql import MAJORS, PostgresqlError

Json = Mapping[str, Any]

SPACE_FACTOR = 1.1
"""The new data beside the old, and WAL written during the upgrade."""


def plan(
    wanted: str,
    observed: Json,
    backed_up: bool,
    standby: bool = False,
    without_backup: bool = False,
    pgdg: bool = False,
) -> dict[str, Any]:
    """`observed` of a host: majors that have data, policy (the output of apt-cache policy),
    installed (package version by major), running (package version of the running server, empty when it does not run),
    used_mb and free_mb on the volume, unfinished (there is a marker of an interrupted run). With `pgdg`, the upgrade
    adds PostgreSQL's own archive before it installs a package; without the package it fails while the old server runs.

    The action is `none`, `minor`, `major`, `continue` (an interrupted run has moved the new data into place) or
    `reject`, with the faults; `package_version` is the version to install for `minor`.
    """
    if wanted not in MAJORS:
        raise PostgresqlError(f"PostgreSQL {wanted} is not supported. Set one of {', '.join(MAJORS)}.")
    majors = sorted((str(major) for major in observed.get("majors") or ()), key=int)
    candidate = candidates(str(observed.get("policy") or ""), [wanted])[wanted]
    installed = (observed.get("installed") or {}).get(wanted)
    if not majors and standby:
        steps = [f"copy the primary when it runs {wanted}"]
        return {"action": "none", "from": wanted, "steps": steps, "faults": []}
    if not majors:
        return _rejected("there is no data. Initialize it with playbooks/postgresql.yml")
    older = [major for major in majors if int(major) < int(wanted)]
    if int(majors[-1]) > int(wanted):
        return _rejected(
            f"the data is of version {majors[-1]}, and a downgrade to {wanted} is not possible. Roll back an "
            f"upgrade with -e op_upgrade_postgresql_version={wanted} -e op_upgrade_postgresql_rollback={majors[-1]}"
        )
    if wanted in majors:
        behind = bool(candidate and candidate != installed)
        # An interrupted run may have installed it and not restarted the server.
        behind = behind or bool(observed.get("running") and observed["running"] != installed)
        newest = candidate or installed
        action = "continue" if older and observed.get("unfinished") else "minor" if behind else "none"
        steps = {
            "continue": [f"complete the upgrade from {older[-1] if older else wanted}"],
            "minor": [
                f"install {newest} in place of {observed.get('running') or installed}",
                "restart the server",
            ],
            "none": [f"nothing: {installed} is the newest"],
        }[action]
        origin = older[-1] if older else wanted
        return {"action": action, "from": origin, "steps": steps, "faults": [], "package_version": newest}
    faults = []
    if candidate is None and installed is None and not pgdg:
        faults.append(f"no configured package archive has PostgreSQL {wanted}. Set postgresql_source to pgdg")
    if standby:
        return {
            "action": "reject" if faults else "major",
            "from": older[-1],
            "steps": [f"rename the data directory of version {older[-1]}, and copy the primary when it runs {wanted}"],
            "faults": faults,
        }
    used, free = int(observed.get("used_mb") or 0), int(observed.get("free_mb") or 0)
    if free < used * SPACE_FACTOR:
        faults.append(
            f"the volume has {free} MB free, and the new data needs about {int(used * SPACE_FACTOR)} MB beside the "
            "old, which stays for a rollback. Increase the volume (provision_volumes)"
        )
    if not backed_up and not without_backup:
        faults.append(
            "there is no backup. Configure the bucket first, or upgrade without a backup with "
            "-e op_upgrade_postgresql_without_backup=true"
        )
    steps = [
        *(["take a full backup and verify every object of it"] if backed_up else []),
        f"install PostgreSQL {wanted}" + (f" ({candidate})" if candidate else " from its own archive" if pgdg else ""),
        f"run pg_upgrade --check while {older[-1]} stays available",
        f"stop the server, copy {used} MB with pg_upgrade, and start version {wanted}",
        "gather statistics, update extensions" + (", and take a full backup" if backed_up else ""),
        f"keep the data of version {older[-1]} for a rollback",
    ]
    return {"action": "reject" if faults else "major", "from": older[-1], "steps": steps, "faults": faults}


def _rejected(fault: str) -> dict[str, Any]:
    return {"action": "reject", "from": "", "steps": [], "faults": [fault]}


def candidates(policy: str, majors: Sequence[str]) -> dict[str, str | None]:
    """Versions that apt would install, by major, from the output of `apt-cache policy postgresql-<major> …`."""
    found: dict[str, str | None] = dict.fromkeys(majors)
    package = ""
    for line in policy.splitlines():
        if line and not line.startswith(" "):
            package = line.rstrip(":")
        elif line.strip().startswith("Candidate:"):
            version = line.split(":", 1)[1].strip()
            major = package.removeprefix("postgresql-")
            if major in found and version != "(none)":
                found[major] = version
    return found
