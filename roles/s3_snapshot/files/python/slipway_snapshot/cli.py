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
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.schedules import ScheduleError
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError

from slipway_snapshot import ceph, config, etcd, postgresql, state
from slipway_snapshot.run import Run

EXECUTE: Mapping[str, Callable[[Run], None]] = {
    "etcd": etcd.execute,
    "postgresql": postgresql.execute,
    "ceph": ceph.execute,
    "config": config.execute,
}
PROOF_KEYS = {"etcd": "etcd/.metadata/proof-"}
"""RKE2 takes every other object in its folder for a snapshot."""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="slipway-snapshot", description=(__doc__ or "").splitlines()[0])
    commands = result.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("run", "save a part, verify it in the bucket and write its manifest"),
        ("prove", "prove that the bucket works with the key of a part"),
        ("record-end", "record the failure of a run that was killed; called by its unit"),
        ("record-drill", "record the result of a restore drill of a part"),
    ):
        command = commands.add_parser(name, help=meaning)
        command.add_argument("part", choices=sorted(EXECUTE))
        if name == "record-drill":
            command.add_argument("--began", type=int, required=True, help="start of the drill, seconds since the epoch")
            command.add_argument("--fault", default="", help="why it failed")
    commands.add_parser("status", help="print results and findings as JSON")
    commands.add_parser("findings", help="print the faults of this host's snapshots, one a line")
    return result


def read_configuration() -> dict[str, Any]:
    return dict(json.loads(state.CONFIGURATION.read_text()))


def recorded(name: str, action: Callable[[dict[str, Any]], None]) -> int:
    """Run the action and record its result with what the action adds to it.

    An unexpected error is a failed run too: without a result, the previous one would count for this run.
    """
    began, more = int(time.time()), dict[str, Any]()
    state.record_start(name, began)
    try:
        action(more)
    except (SnapshotError, ScheduleError) as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001
        traceback.print_exception(error)
        fault = f"crashed ({type(error).__name__}: {error}). See journalctl --unit slipway-snapshot@{name}"
    else:
        state.record_result(name, began, **more)
        return 0
    print(f"slipway-snapshot: {name}: {fault}", file=sys.stderr)
    state.record_result(name, began, fault, **more)
    return 1


def execute_part(configuration: Mapping[str, Any], part: str, result: dict[str, Any]) -> None:
    run = Run.from_configuration(configuration, part)
    run.max_age_seconds = state.part_age_limit(run.options)
    try:
        EXECUTE[part](run)
    finally:
        if run.examined:
            result["newest"] = state.describe(run.newest)


def prove(configuration: Mapping[str, Any], part: str, result: dict[str, Any]) -> None:
    run = Run.from_configuration(configuration, part)
    run.bucket.prove(f"{PROOF_KEYS.get(part, f'{part}/.proof-')}{run.host}")
    run.bucket.prove(f"manifests/{part}/.proof-{run.host}")
    result["digest"] = state.digest(configuration, part)


def main(words: Sequence[str]) -> int:
    os.umask(0o077)
    arguments = parser().parse_args(words)
    command = arguments.command
    if command == "record-end":
        state.record_end(arguments.part, os.environ)
        return 0
    if command == "record-drill":
        state.record_result(f"{state.DRILL}{arguments.part}", arguments.began, arguments.fault)
        return 0
    configuration = read_configuration()
    if command in ("run", "prove") and arguments.part not in configuration["parts"]:
        print(f"slipway-snapshot: {arguments.part} is not saved on this host ({state.CONFIGURATION})", file=sys.stderr)
        return 2
    if command == "run":
        return recorded(arguments.part, partial(execute_part, configuration, arguments.part))
    if command == "prove":
        return recorded(f"{state.PROOF}{arguments.part}", partial(prove, configuration, arguments.part))
    known = state.results()
    found = state.findings(configuration, known, time.time())
    if command == "status":
        parts = list(configuration["parts"])
        print(
            json.dumps(
                {
                    "findings": found,
                    "unproven": [part for part in parts if not state.proven(configuration, known, part)],
                    "due": [part for part in parts if not known.get(part, {}).get("ok")],
                    "results": known,
                }
            )
        )
    else:
        print("\n".join(found))
    return 0
