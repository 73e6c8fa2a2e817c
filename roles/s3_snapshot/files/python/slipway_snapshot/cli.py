"""Save the parts of this host to the environment's bucket, verify what is there, and report it.

Runs as root. A failure ends with exit code 1 and a message. The result of a run, with its start time, is written to
/var/lib/slipway-snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.schedules import ScheduleError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError

from slipway_snapshot import ceph, config, drill, etcd, postgresql, restore, state
from slipway_snapshot.run import Run

EXECUTE: Mapping[str, Callable[[Run], None]] = {
    "etcd": etcd.execute,
    "postgresql": postgresql.execute,
    "ceph": ceph.execute,
    "config": config.execute,
}
PROBE_KEYS = {"etcd": "etcd/.metadata/slipway-probe-"}
"""RKE2 takes every other object in its folder for a snapshot."""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="slipway-snapshot", description=(__doc__ or "").splitlines()[0])
    commands = result.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("run", "save a part, verify it in the bucket and write its manifest"),
        ("verify-bucket", "verify that the bucket works with the key of a part"),
        ("record-end", "record the failure of a run that was killed; called by its unit"),
    ):
        command = commands.add_parser(name, help=meaning)
        command.add_argument("part", choices=sorted(EXECUTE))
    drills = commands.add_parser(
        "drill",
        help="restore the newest snapshot of a part beside it; reads JSON with identity, prints the result as JSON",
    )
    drills.add_argument("part", choices=sorted(drill.DRILLS))
    commands.add_parser(
        "restore-ceph",
        help="restore exports of Ceph's buckets and images; reads objects and identity, prints faults, as JSON",
    )
    commands.add_parser("save", help="save every part of this host now; prints their results as JSON")
    commands.add_parser("status", help="print results and findings as JSON")
    commands.add_parser("findings", help="print the faults of this host's snapshots, one a line")
    return result


def read_configuration() -> dict[str, Any]:
    return dict(json.loads(state.CONFIGURATION.read_text()))


class Recorded:
    """A run whose result is recorded, with what the run adds to `more`.

    An unexpected error is a failed run too: without a result, the previous one would count for this run.
    """

    def __init__(self, name: str) -> None:
        self.name, self.failed = name, False
        self.more: dict[str, Any] = {}

    def __enter__(self) -> Recorded:
        self.began = int(time.time())
        state.record_start(self.name, self.began)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        fault = ""
        if error is not None:
            self.failed, fault = True, str(error)
            if not isinstance(error, SnapshotError | ScheduleError):
                traceback.print_exception(error)
                fault = f"crashed ({type(error).__name__}: {error}). See journalctl --unit slipway-snapshot@{self.name}"
            print(f"slipway-snapshot: {self.name}: {fault}", file=sys.stderr)
        state.record_result(self.name, self.began, fault, **self.more)
        return True


def recorded(name: str, action: Callable[[dict[str, Any]], None]) -> int:
    with Recorded(name) as run:
        action(run.more)
    return 1 if run.failed else 0


def execute_part(configuration: Mapping[str, Any], part: str, saves_now: bool, result: dict[str, Any]) -> None:
    run = Run.from_configuration(configuration, part)
    run.saves_now = saves_now
    run.max_age_seconds = state.part_age_limit(run.options)
    try:
        EXECUTE[part](run)
    finally:
        if run.examined:
            result["newest"] = state.describe(run.newest)


def run_part(configuration: Mapping[str, Any], part: str, *, saves_now: bool = False) -> int:
    with state.lock(part):  # a timer may elapse while a run of the role saves the part
        return recorded(part, partial(execute_part, configuration, part, saves_now))


def verify_bucket(configuration: Mapping[str, Any], part: str, result: dict[str, Any]) -> None:
    run = Run.from_configuration(configuration, part)
    run.bucket.verify(f"{PROBE_KEYS.get(part, f'{part}/.slipway-probe-')}{run.host}")
    run.bucket.verify(f"manifests/{part}/.slipway-probe-{run.host}")
    result["digest"] = state.digest(configuration, part)


def drill_part(configuration: Mapping[str, Any], part: str, identity: str, result: dict[str, Any]) -> None:
    result |= drill.execute(Run.from_configuration(configuration, part), identity)


def main(words: Sequence[str]) -> int:
    os.umask(0o077)
    arguments = parser().parse_args(words)
    command = arguments.command
    if command == "record-end":
        state.record_end(arguments.part, os.environ)
        return 0
    configuration = read_configuration()
    if command in ("run", "verify-bucket", "drill") and arguments.part not in configuration["parts"]:
        print(f"slipway-snapshot: {arguments.part} is not saved on this host ({state.CONFIGURATION})", file=sys.stderr)
        return 2
    if command == "run":
        return run_part(configuration, arguments.part)
    if command == "save":
        code = max(run_part(configuration, part, saves_now=True) for part in configuration["parts"])
        print(json.dumps({part: state.results()[part] for part in configuration["parts"]}))
        return code
    if command == "verify-bucket":
        return recorded(f"{state.BUCKET}{arguments.part}", partial(verify_bucket, configuration, arguments.part))
    if command == "drill":
        name = f"{state.DRILL}{arguments.part}"
        with state.lock(name):
            recorded(name, partial(drill_part, configuration, arguments.part, json.load(sys.stdin)["identity"]))
        print(json.dumps(state.results()[name]))
        return 0
    if command == "restore-ceph":
        print(restore.execute(Run.from_configuration(configuration, "ceph"), json.load(sys.stdin)))
        return 0
    known = state.results()
    found = state.findings(configuration, known, time.time())
    if command == "status":
        parts = list(configuration["parts"])
        print(
            json.dumps(
                {
                    "findings": found,
                    "unverified": [part for part in parts if not state.is_verified(configuration, known, part)],
                    "due": [part for part in parts if not known.get(part, {}).get("ok")],
                    "results": known,
                }
            )
        )
    else:
        print("\n".join(found))
    return 0
