"""What an upgrade of PostgreSQL has to do, or why it must not begin. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .postgresql import MAJORS, PostgresqlError

Json = Mapping[str, Any]

ROOM = 1.1
"""The new data beside the old, and what is written while it is made."""


def plan(wanted: str, seen: Json, backed_up: bool, standby: bool = False, unsaved: bool = False) -> dict[str, Any]:
    """`seen` of a host: majors that have data, candidates (package version by major, null where there is none),
    installed (the same of what is installed), running (the version of the package that the server is of, empty when it
    does not run), used_mb and free_mb on the volume, unfinished (a note that a run left).

    The action is `none`, `minor`, `major`, `continue` (a dead run's data is in its place) or `refuse`, with the faults.
    """
    if wanted not in MAJORS:
        raise PostgresqlError(f"PostgreSQL {wanted} is not known; give one of {', '.join(MAJORS)}.")
    majors = sorted((str(major) for major in seen.get("majors") or ()), key=int)
    candidate = (seen.get("candidates") or {}).get(wanted)
    installed = (seen.get("installed") or {}).get(wanted)
    if not majors and standby:
        steps = [f"copy the primary when that runs {wanted}"]
        return {"action": "none", "from": wanted, "steps": steps, "faults": []}
    if not majors:
        return _refused("there is no data; playbooks/postgresql.yml begins a database")
    older = [major for major in majors if int(major) < int(wanted)]
    if int(majors[-1]) > int(wanted):
        return _refused(
            f"the data is of version {majors[-1]}, and there is no way down to {wanted}; back from an upgrade leads "
            f"-e op_upgrade_postgresql_version={wanted} -e op_upgrade_postgresql_back={majors[-1]}"
        )
    if wanted in majors:
        behind = bool(candidate and candidate != installed)
        # A run that died between the two has installed it and not restarted the server.
        behind = behind or bool(seen.get("running") and seen["running"] != installed)
        newest = candidate or installed
        action = "continue" if older and seen.get("unfinished") else "minor" if behind else "none"
        steps = {
            "continue": [f"finish what an upgrade from {older[-1] if older else wanted} left to do"],
            "minor": [
                f"install {newest} in place of {seen.get('running') or installed}",
                "restart the server",
            ],
            "none": [f"nothing: {installed} is the newest"],
        }[action]
        return {"action": action, "from": older[-1] if older else wanted, "steps": steps, "faults": []}
    faults = []
    if candidate is None and installed is None:
        faults.append(
            f"no archive that it knows has PostgreSQL {wanted}; set postgresql_source to pgdg, or wait for Debian's"
        )
    if standby:
        return {
            "action": "refuse" if faults else "major",
            "from": older[-1],
            "steps": [f"set its data of version {older[-1]} aside, and copy the primary when that runs {wanted}"],
            "faults": faults,
        }
    used, free = int(seen.get("used_mb") or 0), int(seen.get("free_mb") or 0)
    if free < used * ROOM:
        faults.append(
            f"its volume has {free} MB free, and the new data of about {int(used * ROOM)} MB is made beside the old, "
            "which is the way back; give the volume more GB (provision_volumes)"
        )
    if not backed_up and not unsaved:
        faults.append(
            "nothing backs it up; configure its bucket first, or go on without a backup by "
            "-e op_upgrade_postgresql_unsaved=true"
        )
    steps = [
        *(["take a full backup and read every object of it"] if backed_up else []),
        f"install PostgreSQL {wanted}" + (f" ({candidate})" if candidate else ""),
        f"have pg_upgrade look at the data while {older[-1]} goes on serving",
        f"stop the server, copy {used} MB with pg_upgrade, and start version {wanted}",
        "gather statistics, renew extensions" + (", and take a full backup" if backed_up else ""),
        f"keep the data of version {older[-1]} as the way back",
    ]
    return {"action": "refuse" if faults else "major", "from": older[-1], "steps": steps, "faults": faults}


def _refused(fault: str) -> dict[str, Any]:
    return {"action": "refuse", "from": "", "steps": [], "faults": [fault]}


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
