"""Back up PostgreSQL to its buckets, verify the backups, and restore from them.

Runs as postgres. A failure ends with exit code 1 and a message. The result of a run, with its start time, is written to
/var/lib/slipway-postgresql.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from postgresql_backup import recovery, repository
from postgresql_backup.repository import BACKUPS, RECORDED, Fault


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="postgresql-backup", description=(__doc__ or "").splitlines()[0])
    commands = result.add_subparsers(dest="command", required=True)
    for kind in BACKUPS:
        commands.add_parser(kind, help=f"take a backup ({kind})")
    commands.add_parser("verify", help="read every object of the repositories")
    commands.add_parser("status", help="print the status of the repositories as JSON")
    commands.add_parser("findings", help="print the faults of the backups, one a line")
    commands.add_parser("heartbeat", help="insert the heartbeat row of this minute")
    end = commands.add_parser("record-end", help="record the failure of a run that was killed; called by its unit")
    end.add_argument("of", choices=RECORDED)
    for name, meaning in (
        ("target", "validate a recovery target, and print pgBackRest's options for it"),
        ("restore", "restore a recovery target beside the present data directory"),
        ("restore-database", "restore one database, and rename the present one"),
        ("drill", "test a restore beside the running server"),
    ):
        command = commands.add_parser(name, help=meaning)
        if name == "restore-database":
            command.add_argument("name")
        if name == "restore":
            command.add_argument("--replace", action="store_true", help="discard an earlier restore of the same target")
        if name == "drill":
            command.set_defaults(target="latest")
        else:
            command.add_argument(
                "target", help="latest, a time with its zone, or name:<restore point>[@<a time before it>]"
            )
        command.add_argument("--repository", type=int, default=0, help="number of the repository")
        command.add_argument("--repository-time", default="", help="read its objects as they were at this time")
        command.add_argument("--timeline", default="", help="a timeline other than the latest")
    return result


def execute(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the command. The values that it returns are recorded with its result."""
    command = arguments.command
    if command in BACKUPS:
        repository.back_up(command)
    elif command == "verify":
        repository.verify()
    elif command == "record-end":
        repository.record_end(arguments.of, os.environ)
    elif command == "status":
        print(json.dumps(repository.status()))
    elif command == "findings":
        now = int(time.time())
        print("\n".join(repository.findings(repository.status(), repository.results(), now, repository.schedule())))
    elif command == "heartbeat":
        recovery.write_heartbeat()
    elif command == "target":
        print(json.dumps(recovery.resolve_target(arguments)[2]))
    elif command == "restore":
        print(json.dumps(recovery.restore(arguments)))
    elif command == "restore-database":
        print(json.dumps(recovery.restore_database(arguments)))
    elif command == "drill":
        found = recovery.drill(arguments)
        print(json.dumps(found))
        return {"drill_rpo_seconds": found["rpo_seconds"], "drill_rto_seconds": found["rto_seconds"], "report": found}
    return {}


class Run:
    """A run of a command. A failure is printed, and recorded when the command has a recorded result.

    An unexpected error is a failed run too: without a result, the previous one would count for this run.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.began = int(time.time())
        self.failed = False

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        self.failed = True
        fault = str(error)
        if not isinstance(error, Fault):
            traceback.print_exception(error)
            unit = f"slipway-postgresql-backup@{self.command}"
            fault = f"crashed ({type(error).__name__}: {error}). See journalctl --unit {unit}"
        print(f"postgresql-backup: {fault}", file=sys.stderr)
        if self.command in RECORDED:
            report = {"began": repository.format_time(self.began), "fault": fault}
            repository.record_result(self.command, self.began, fault, report=report)
        return True


def main(words: Sequence[str]) -> int:
    arguments = parser().parse_args(words)
    command = arguments.command
    with Run(command) as run:
        if command in (*BACKUPS, "verify") and repository.is_standby():
            print("this server is a standby; backups run on its primary")
            return 0
        if command in RECORDED:
            repository.record_start(command, run.began)
        more = execute(arguments)
        if command in RECORDED:
            repository.record_result(command, run.began, **more)
    return 1 if run.failed else 0
