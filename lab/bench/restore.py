"""Restores of PostgreSQL, by the restore drill: seconds and bytes moved for databases of several sizes."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.bench.goals import Figure
from lab.bench.postgresql import HOST, psql, run_on
from lab.settings import Settings

SIZES_GB = (1, 10)
VOLUME_FACTOR, VOLUME_GB = 3, 5
"""The volume holds the data, WAL that is not archived yet, and the restored copy; the second number is constant."""
DISK_FACTOR = 5
"""GB on this machine for a GB of data: also WAL and backup in the bucket, both compressed by half."""
ROW_BYTES = 2048
"""On disk: four rows fill a page."""
DIGESTS = 60
FILL = f"""\
CREATE TABLE IF NOT EXISTS filling (content text);
INSERT INTO filling
SELECT (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {DIGESTS}) WHERE row > 0)
FROM generate_series(1, {{rows}}) AS row;
CHECKPOINT;
"""
"""Rows of hexadecimal digits, which compress by half in the bucket, and are too short to be compressed in the table."""
SIZE = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"
INFO = "runuser -u postgres -- pgbackrest --stanza=main --repo=1 --output=json info"
BACK_UP = "runuser -u postgres -- /usr/local/lib/slipway/postgresql-backup full"

Play = Callable[[str, Path], Any]


def restores(settings: Settings, inventory: Path, play: Play, sizes_gb: Sequence[int] = SIZES_GB) -> Iterator[Figure]:
    """`play` runs a playbook with an inventory. The sizes have to ascend: the database is filled up to each."""
    for size_gb in sizes_gb:
        free_gb, needed_gb = shutil.disk_usage(settings.state_root).free // 10**9, DISK_FACTOR * size_gb
        if free_gb < needed_gb:
            print(
                f"bench: {settings.state_root}: the restore of {size_gb} GB is not measured, {free_gb} GB are free and "
                f"{needed_gb} GB are needed.",
                file=sys.stderr,
            )
            continue
        grow_volume(inventory, play, VOLUME_GB + VOLUME_FACTOR * size_gb)
        if (rows := missing_rows(int(psql(SIZE)), size_gb)) > 0:
            psql(FILL.format(rows=rows))
        run_on(HOST, BACK_UP)
        play("playbooks/operations/drill_postgresql.yml", inventory)
        yield from figures(newest_report(inventory), moved_bytes(run_on(HOST, INFO)), size_gb)


def missing_rows(size_bytes: int, size_gb: int) -> int:
    return max(size_gb * 10**9 - size_bytes, 0) // ROW_BYTES


def grow_volume(inventory: Path, play: Play, size_gb: int) -> None:
    """Grow the volume of the database if it is smaller, by the plays that do it in an environment."""
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    (volume,) = hosts["all"]["children"]["postgresql"]["vars"]["provision_volumes"]
    if volume["size_gb"] >= size_gb:
        return
    volume["size_gb"] = size_gb
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        larger = Path(folder) / inventory.name
        shutil.copytree(inventory, larger)
        (larger / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
        play("playbooks/provision.yml", larger)
        play("playbooks/postgresql.yml", larger)


def moved_bytes(info: str) -> int:
    """Bytes that a restore of the newest backup reads from the bucket, from the output of `pgbackrest info`."""
    (stanza,) = json.loads(info)
    return int(stanza["backup"][-1]["info"]["repository"]["size"])


def newest_report(inventory: Path) -> dict[str, Any]:
    folder = inventory.parents[1] / "artifacts" / inventory.name / "drill_postgresql"
    return dict(json.loads(max(folder.glob("*/drill.json")).read_text(encoding="utf-8")))


def figures(report: dict[str, Any], moved: int, size_gb: int) -> Iterator[Figure]:
    name, megabytes = f"restore of {size_gb} GB", report["bytes"] / 1e6
    note = f"{megabytes:.0f} MB of data"
    yield Figure(f"{name}, until the database accepts connections", report["rto_seconds"], "s", note=note)
    yield Figure(f"{name}, bytes from the bucket", moved / 1e6, "MB", note="compressed")
    yield Figure(f"{name}, data per second", megabytes / report["fetch_seconds"], "MB/s", note="while it is fetched")
