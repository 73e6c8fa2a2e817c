"""Long and repeated tests, in parts. Called by `make soak`, or `make soak PART=ceph` for one part.

Each part runs in a new lab, which is removed afterwards. Results are stored in artifacts/soak/results.json: a part that
passed at this commit is skipped unless it is named, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.support import report
from tests.support.labs import REPOSITORY, SOAK
from tests.support.tracks import Layer, Plan, interrupt_on_signals, print_failures, run

RESULTS = REPOSITORY / "artifacts/soak/results.json"
LOGS = Path("/var/log/slipway/soak")
PLATFORM = "pytest -q tests/platform/"


@dataclass(frozen=True)
class Part:
    name: str
    command: str
    verifies: str
    minutes: int
    """Duration on 2 cores, with cached images."""


PARTS = (
    Part(
        "kills",
        f"lab up --only-cloud && SLIPWAY_TEST_KILLS=20 {PLATFORM}test_1_interrupted.py",
        "a build killed 20 times converges",
        60,
    ),
    Part(
        "ceph",
        f"lab up && {PLATFORM}test_ceph.py",
        "lost hosts, lost manager, lost quorum, dead disk, upgrade killed midway: no acknowledged write lost",
        35,
    ),
    Part(
        "postgresql",
        f"lab up && {PLATFORM}test_postgresql.py tests/platform/test_postgresql_backup.py",
        "20 kills; restores to a moment and of one database; damage, wrong keys, full volume are reported",
        35,
    ),
    Part(
        "standby", f"lab up && {PLATFORM}test_standby.py", "failover, rejoin, switchover: no acknowledged row lost", 25
    ),
    Part(
        "rke2",
        f"lab up && {PLATFORM}test_rke2.py tests/platform/test_pods.py",
        "each server lost in turn; rolling restart without a failed call or request of an application; its pods",
        30,
    ),
    Part(
        "cluster",
        "lab up --only-cloud && SLIPWAY_TEST_INVENTORY=tests/cluster/lab pytest -q tests/cluster",
        "upgrade; etcd restored from bucket and file, through 10 kills; lost quorum, servers, disks; bad snapshots",
        35,
    ),
    Part(
        "operations",
        f"lab up && {PLATFORM}test_ceph_hosts.py tests/platform/test_postgresql_upgrade.py "
        "tests/platform/test_z_destroy.py",
        "storage hosts added, drained, replaced; keys rotated; PostgreSQL upgraded, rolled back; everything destroyed",
        50,
    ),
    Part(
        "site",
        f"lab up && SLIPWAY_TEST_RESTORE_KILLS=10 {PLATFORM}test_restore_site.py",
        "restore drills; a lost site restored from bucket and escrow, through 10 kills",
        60,
    ),
    Part(
        "charts",
        f"lab up && {PLATFORM}test_charts.py",
        "Rancher's chart: failed changes, killed runs and lost servers; it serves meanwhile",
        25,
    ),
    Part(
        "pipeline",
        f"lab up && {PLATFORM}test_pipeline.py",
        "a commit applied from the runner's host, promoted, rolled back; cancel, outage, killed runner, secrets",
        45,
    ),
    Part(
        "object_storage",
        f"lab up && {PLATFORM}test_object_storage.py tests/platform/test_ceph_csi.py",
        "S3 of the store and of the gateways, object lock, large objects; Kubernetes' users of Ceph",
        25,
    ),
    Part(
        "plain",
        f"export SLIPWAY_LAB_IMAGES=plain; lab up && {PLATFORM}test_2_site.py",
        "the site from Debian's bare images: every package is installed by its role; second run and check mode 0",
        25,
    ),
    Part("molecule", "lab up --only-cloud && python -m tests.molecule", "every role's scenario, whole", 45),
)


@dataclass(frozen=True)
class Record:
    part: str
    commit: str
    started: str
    seconds: int
    result: str


def read_records(path: Path) -> list[Record]:
    return [Record(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def write_records(path: Path, records: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")
    part.rename(path)


def newest(records: Sequence[Record]) -> dict[str, Record]:
    """Part → its newest record."""
    return {record.part: record for record in records}


def due(parts: Sequence[Part], named: str, known: Mapping[str, Record], commit: str) -> list[Part]:
    """The named part, or all that did not pass at this commit."""
    if named:
        found = [part for part in parts if part.name == named]
        if not found:
            raise ValueError(f"PART={named}: unknown part. Name one of: {', '.join(part.name for part in parts)}.")
        return found
    passed = {name for name, record in known.items() if (record.commit, record.result) == (commit, "passed")}
    return [part for part in parts if part.name not in passed]


def current_commit(repository: Path) -> str:
    """The commit that is checked out; with uncommitted changes a unique value, since those may differ each time."""
    git = ["git", "-C", str(repository)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
    return f"{head}+changes-{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if changes.strip() else head


def rows(parts: Sequence[Part], known: Mapping[str, Record]) -> list[str]:
    lines = []
    for part in parts:
        record = known.get(part.name)
        done = [record.result, f"{record.seconds / 60:.0f}", record.started, record.commit[:10]] if record else [""] * 4
        lines.append([part.name, f"{part.minutes}", *done, part.verifies])
    return report.table(["part", "expected min", "result", "last min", "started (UTC)", "commit", "verifies"], lines)


def main(arguments: Sequence[str]) -> int:
    named = arguments[0] if arguments else ""
    commit = current_commit(REPOSITORY)
    records = read_records(RESULTS)
    try:
        parts = due(PARTS, named, newest(records), commit)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(*rows(PARTS, newest(records)), sep="\n")
    print(f"\nto run now: {', '.join(part.name for part in parts) or 'nothing'}", flush=True)
    interrupted = interrupt_on_signals()
    (LOGS / "junit").mkdir(parents=True, exist_ok=True)
    failed = []
    for part in parts:
        (LOGS / f"{part.name}.log").write_bytes(b"")
        SOAK.down()
        started, start_seconds = datetime.now(UTC), time.monotonic()
        layer = Layer(part.name, part.command, 60 * part.minutes)
        try:
            tracks = run([Plan(part.name, SOAK, (layer,))], LOGS, interrupted)
        finally:
            SOAK.down()
        if interrupted.is_set():
            print(f"{part.name}: interrupted, no result is stored", file=sys.stderr)
            return 1
        result = "failed" if tracks[0].failed else "passed"
        seconds = round(time.monotonic() - start_seconds)
        records.append(Record(part.name, commit, f"{started:%Y-%m-%d %H:%M}", seconds, result))
        write_records(RESULTS, records)
        print_failures(tracks)
        failed += [part.name] if result == "failed" else []
    print("", *rows(PARTS, newest(records)), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main([argument for argument in sys.argv[1:] if argument]))
