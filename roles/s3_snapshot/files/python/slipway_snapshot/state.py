"""Results of past runs, each with the start time of its run, as JSON and as metrics, and the findings from them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.schedules import ScheduleError, age_limit
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    Manifest,
    format_time,
    parse_time,
)

Json = dict[str, Any]
CONFIGURATION = Path("/etc/slipway/snapshot.json")
STATE = Path("/var/lib/slipway-snapshot")
TIMERS = Path("/etc/systemd/system")
BUCKET, DRILL = "bucket-", "drill-"
"""Prefixes of results that are not those of a part's run."""
DAY = 86400


def digest(configuration: Mapping[str, Any], part: str) -> str:
    """Identifies the bucket and the keys of a verification."""
    used = [configuration["bucket"], *(configuration["parts"][part][name] for name in ("access_key", "secret_key"))]
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


@contextmanager
def lock(name: str, folder: Path = STATE) -> Iterator[None]:
    with (folder / f".lock-{name}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def results(folder: Path = STATE) -> Json:
    try:
        found = json.loads((folder / "results.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}  # without a result every part is a finding
    return found if isinstance(found, dict) else {}


def update(name: str, change: Callable[[Json], Json], folder: Path = STATE) -> None:
    """Change one result and write the metrics of all, under a lock: parts run at the same time."""
    with lock("results", folder):
        known = results(folder)
        known[name] = change(known.get(name, {}))
        for file, text, mode in (
            ("results.json", json.dumps(known, indent=1) + "\n", 0o600),
            ("metrics.prom", metrics(known), 0o644),
        ):
            part = folder / f".{file}.{os.getpid()}"
            part.touch(mode=0o600)
            part.write_text(text)
            part.chmod(mode)
            part.replace(folder / file)


def record_start(name: str, began: int, folder: Path = STATE) -> None:
    """Record the start of a run beside the last result, for `record_end` in case the run is killed."""
    update(name, lambda last: last | {"running": began}, folder)


def record_result(name: str, began: int, fault: str = "", folder: Path = STATE, **more: Any) -> None:
    now = int(time.time())

    def result(last: Json) -> Json:
        kept = {"newest": last["newest"]} if "newest" in last else {}
        good = last.get("good") if fault else now
        return {**kept, "began": began, "at": now, "ok": not fault, "good": good, "fault": fault, **more}

    update(name, result, folder)


def record_end(name: str, environment: Mapping[str, str], folder: Path = STATE) -> None:
    """Record the failure of a run that was killed; systemd calls this after each run, with its exit status."""
    last = results(folder).get(name, {})
    if environment.get("SERVICE_RESULT") != "success" and ("running" in last or last.get("ok", True)):
        words = " ".join(environment.get(word, "") for word in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")).strip()
        fault = f"ended without a result ({words}). See journalctl --unit slipway-snapshot@{name}"
        record_result(name, last.get("running", int(time.time())), fault, folder)


def describe(manifest: Manifest | None) -> Json | None:
    """The newest good snapshot, as a result holds it."""
    if manifest is None:
        return None
    return {"object": manifest.object, "created": manifest.created, "size_bytes": manifest.size_bytes}


def metrics(known: Mapping[str, Json]) -> str:
    """The results in Prometheus' text format, for the textfile collector of its node exporter."""
    names: dict[str, tuple[str, Callable[[Mapping[str, Any]], int]]] = {
        "slipway_snapshot_last_result": ("1 if the last run succeeded", lambda result: int(result["ok"])),
        "slipway_snapshot_last_began_timestamp_seconds": ("start of the last run", lambda result: result["began"]),
        "slipway_snapshot_last_success_timestamp_seconds": ("last success", lambda result: result.get("good") or 0),
        "slipway_snapshot_newest_timestamp_seconds": ("newest good snapshot", _newest_time),
        "slipway_snapshot_newest_bytes": ("size of the newest good snapshot", _newest_bytes),
    }
    lines = []
    for name, (meaning, value) in names.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
        lines += [
            f'{name}{{job="{job}"}} {value(result)}'
            for job, result in sorted(known.items())
            if "began" in result and (value not in (_newest_time, _newest_bytes) or "newest" in result)
        ]
    return "\n".join(lines) + "\n"


def _newest_time(result: Mapping[str, Any]) -> int:
    newest = result.get("newest")
    return int(parse_time(newest["created"]).timestamp()) if newest else 0


def _newest_bytes(result: Mapping[str, Any]) -> int:
    newest = result.get("newest")
    return int(newest["size_bytes"]) if newest else 0


def format_duration(seconds: float) -> str:
    return f"{int(seconds // DAY)} days" if seconds >= 3 * DAY else f"{int(seconds // 3600)} hours"


def timer_time(part: str, folder: Path = TIMERS) -> float | None:
    """Since when the part is scheduled; None without a timer."""
    path = folder / f"slipway-snapshot-{part}.timer"
    return path.stat().st_mtime if path.exists() else None


def is_verified(configuration: Mapping[str, Any], known: Mapping[str, Json], part: str) -> bool:
    """Whether the present bucket and keys of a part were verified."""
    verified = known.get(f"{BUCKET}{part}", {})
    return bool(verified.get("ok")) and verified.get("digest") == digest(configuration, part)


def timer_calendar(timer: str, folder: Path = TIMERS) -> str:
    """When another program's timer elapses."""
    path = folder / f"{timer}.timer"
    found = re.search(r"^OnCalendar=(.+)$", path.read_text(), re.M) if path.exists() else None
    if found is None:
        raise ScheduleError(f"there is no timer {timer}, which makes the snapshots")
    return found[1]


def part_age_limit(options: Mapping[str, Any]) -> int:
    """The age that the newest snapshot of a part may have, by our timer and by the program that makes the snapshots."""
    sources = [*options["source_calendars"], *map(timer_calendar, options["source_timers"])]
    return age_limit(options["calendar"], sources)


def findings(
    configuration: Mapping[str, Any],
    known: Mapping[str, Json],
    now: float,
    since: Callable[[str], float | None] = timer_time,
    limit: Callable[[Mapping[str, Any]], int] = part_age_limit,
) -> list[str]:
    """The faults of this host's parts. A missing or stale result is a fault."""
    found: list[str] = []
    for part, options in sorted(configuration["parts"].items()):
        verified, result = known.get(f"{BUCKET}{part}", {}), known.get(part, {})
        scheduled = since(part)
        if not is_verified(configuration, known, part):
            reason = verified.get("fault") or "it was not used with the present bucket and keys"
            found.append(f"{part}: the bucket is not verified: {reason}. Run playbooks/s3_snapshot.yml")
        if scheduled is None:
            found.append(f"{part}: there is no timer. Run playbooks/s3_snapshot.yml")
            continue
        try:
            most = limit(options)
        except ScheduleError as error:
            found.append(f"{part}: {error}. Correct s3_snapshot_schedule")
            continue
        if result and not result.get("ok", False) and "at" in result:
            found.append(f"{part}: the run of {format_time(result['began'])} failed: {result['fault']}")
        if now - (result.get("good") or scheduled) > most:
            last = (
                f"last succeeded {format_duration(now - result['good'])} ago"
                if result.get("good")
                else "has never succeeded"
            )
            found.append(f"{part}: the snapshot {last} on this host. Run systemctl start slipway-snapshot@{part}")
        newest = result.get("newest")
        if newest:
            age = now - parse_time(newest["created"]).timestamp()
            if age > most:
                found.append(
                    f"{part}: the newest good snapshot ({newest['object']}) is {format_duration(age)} old, and its "
                    f"schedule allows {format_duration(most)}"
                )
        elif result.get("good") and now - scheduled > most:
            found.append(f"{part}: the bucket holds no good snapshot of this host")
        found += drill_findings(part, options.get("drill_days", 0), known.get(f"{DRILL}{part}", {}), now, scheduled)
    return found


def drill_findings(part: str, days: int, result: Mapping[str, Any], now: float, since: float) -> list[str]:
    """Faults of the last restore drill, if one is expected at least every `days`, the first after `since`."""
    if not days or (not result and now - since <= days * DAY):
        return []
    if not result:
        return [f"{part}: a restore was never drilled, and s3_snapshot_drill_days expects one every {days} days"]
    began = result.get("running", 0)
    if began > result.get("began", 0) and now - began > DAY:
        return [f"{part}: the drill of {format_time(began)} ended without a result"]
    if "ok" not in result:
        return []  # the first one runs
    faults = [] if result["ok"] else [f"{part}: the drill of {format_time(result['began'])} failed: {result['fault']}"]
    if (age := now - (result.get("good") or 0)) > days * DAY and result["ok"]:
        faults.append(
            f"{part}: the last drill is {format_duration(age)} old, and s3_snapshot_drill_days allows {days} days"
        )
    return faults
