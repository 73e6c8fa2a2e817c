"""pgBackRest's repositories: backups, verification, their status, and the results of past runs.

`pgbackrest info` and `verify` exit with 0 whatever they find, so their output is parsed here.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Status = Json
"""The result of `status`: state, states, faults, backups, archives, system."""
Schedule = Mapping[str, tuple[int, int] | None]
"""Command → the longest interval in seconds, and since when it is scheduled."""
STANZA = "main"
CONFIG = Path("/etc/pgbackrest/pgbackrest.conf")
REPORT_DIRECTORY = Path("/var/lib/slipway-postgresql")
TIMER_DIRECTORY = Path("/etc/systemd/system")
BACKUPS = ("full", "diff", "incr")
RECORDED = (*BACKUPS, "verify", "drill")
"""Commands that have a timer, and whose result is recorded."""
OK, NO_STANZA_PATH, NO_BACKUP, NO_STANZA_DATA = 0, 1, 2, 3
PARALLEL = "--process-max=8"
"""Reading the bucket waits for the network more than it uses the CPU."""
SCHEDULE_MARGIN_SECONDS = 2 * 3600
"""Tolerance beyond the schedule: the random delay of a timer, and an hour of daylight saving time."""
DATABASE_TIMEOUT_SECONDS = 24 * 3600
"""For a command that reads or writes a whole database; one that runs longer hangs."""
STATEMENT_TIMEOUT_SECONDS = 600
# Patterns of pgBackRest's errors, and their likely cause.
ERROR_HINTS = (
    (
        r"CryptoError|cipher header invalid|found outside of section",
        "the passphrase differs from that of the first backup",
    ),
    (r"HostConnectError|unable to get address|timeout connecting", "the bucket's host cannot be reached from here"),
    (
        r"CertificateError|unable to verify certificate|certificate",
        "the certificate of the bucket's host cannot be verified",
    ),
    (r"SignatureDoesNotMatch|InvalidAccessKeyId", "the bucket rejects this pair of keys as unknown"),
    (r"AccessDenied", "this pair of keys lacks a permission on the bucket"),
    (r"ChecksumError|ZSTD|zst|decompress|checksum", "an object in the bucket is damaged"),
    (r"No space left|ENOSPC", "the volume is full"),
)


def format_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S+00:00}"


class Fault(Exception):
    """A failure, with a message for the operator."""


def summarize(text: str, length: int = 700) -> str:
    """pgBackRest's output without timestamps and process numbers, with the likely cause first."""
    words = " ".join(re.sub(r"^\d{4}-\d\d-\d\d \S+ P\d+ +(ERROR|WARN): ", "", line) for line in text.splitlines())
    # With a wrong passphrase pgBackRest prints the binary content of the file.
    words = re.sub(r"(found outside of section at line \d+):.*", r"\1", words)
    words = " ".join(re.sub(r"[^\x20-\x7e]+", " ", words).split())
    hints = [hint for pattern, hint in ERROR_HINTS if re.search(pattern, words)][:1]
    return "; ".join([*hints, words[-length:]]) if words else "no output"


def run_pgbackrest(*arguments: str, seconds: float = DATABASE_TIMEOUT_SECONDS) -> str:
    command = ["pgbackrest", f"--stanza={STANZA}", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise Fault(
            f"the bucket does not answer within {seconds} seconds. See /var/log/pgbackrest, and check the network"
        ) from None
    if done.returncode != 0:
        verb = next(word for word in reversed(arguments) if not word.startswith("-"))
        raise Fault(f"pgbackrest {verb} failed ({done.returncode}): {summarize(done.stderr or done.stdout)}")
    return done.stdout


def configuration_value(name: str) -> str:
    """A value of pgBackRest's configuration."""
    found = re.search(rf"^{re.escape(name)}=(.*)$", CONFIG.read_text(), re.M)
    if found is None:
        raise Fault(f"{CONFIG}: {name} is not set. Run playbooks/postgresql.yml")
    return found[1].strip()


def psql_command(*connection: str, **variables: str) -> list[str]:
    """The psql command of every statement. It quotes the variables that a statement names as :'name' or :"name"."""
    given = [f"--set={name}={value}" for name, value in variables.items()]
    return ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", *given,
            "--username=postgres", *connection]  # fmt: skip


def psql(statement: str, database: str = "postgres", **variables: str) -> str:
    """Run a statement on the local server."""
    try:
        done = subprocess.run(
            psql_command("--dbname", database, **variables),
            input=statement, capture_output=True, text=True, errors="replace", check=False, cwd="/",
            timeout=STATEMENT_TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Fault(f"PostgreSQL: a statement timed out after {STATEMENT_TIMEOUT_SECONDS} seconds") from None
    if done.returncode != 0:
        raise Fault(f"PostgreSQL: a statement failed: {' '.join(done.stderr.split())[:500]}")
    return done.stdout.strip()


def is_running() -> bool:
    """Whether the local server accepts connections."""
    # pg_isready has a timeout of 3 seconds of its own.
    return (
        subprocess.run(["pg_isready", "--quiet", "--username=postgres"], check=False, cwd="/", timeout=60).returncode
        == 0
    )


def is_standby() -> bool:
    """Whether this is a standby: backups, heartbeats and verification run on the primary."""
    return psql("SELECT pg_is_in_recovery()") == "t"


# the repository


def parse_info(info: Sequence[Json]) -> Status:
    """The status from `info --output=json`: state (absent, empty, ok or broken), faults, backups, WAL archives, and the
    database system identifier."""
    stanza = next((entry for entry in info if entry.get("name") == STANZA), None)
    if stanza is None:
        return {"state": "absent", "faults": [], "backups": [], "archives": [], "system": ""}
    backups = [
        {
            "label": backup["label"],
            "type": backup["type"],
            "repository": backup.get("database", {}).get("repo-key", 1),
            "start": backup["timestamp"]["start"],
            "stop": backup["timestamp"]["stop"],
            "bytes": backup.get("info", {}).get("size", 0),
            "error": bool(backup.get("error")),
        }
        for backup in stanza.get("backup") or ()
    ]
    archives = [
        {"repository": archive.get("database", {}).get("repo-key", 1), "first": archive["min"], "last": archive["max"]}
        for archive in stanza.get("archive") or ()
        if archive.get("max")
    ]
    repositories = stanza.get("repo") or [{"key": 1, "status": stanza["status"]}]
    codes = {repository["key"]: repository["status"]["code"] for repository in repositories}
    faults = [
        f"repository {repository['key']}: {summarize(repository['status']['message'])}"
        for repository in repositories
        if repository["status"]["code"] not in (OK, NO_STANZA_PATH, NO_BACKUP, NO_STANZA_DATA)
    ]
    if faults:
        state = "broken"
    elif any(code in (NO_STANZA_PATH, NO_STANZA_DATA) for code in codes.values()):
        state = "absent"
    elif any(code == NO_BACKUP for code in codes.values()) or _has_only_former_backups(stanza):
        state = "empty"
    else:
        state = "ok"
    systems = [str(known["system-id"]) for known in stanza.get("db") or ()]
    return {
        "state": state,
        "faults": faults,
        "backups": backups,
        "archives": archives,
        "system": systems[-1] if systems else "",
    }


def _has_only_former_backups(stanza: Json) -> bool:
    """Whether a repository has a newer database system than that of all its backups."""
    newest: dict[int, int] = {}
    for known in stanza.get("db") or ():
        key = known.get("repo-key", 1)
        newest[key] = max(newest.get(key, 0), known["id"])
    there = {
        (backup.get("database", {}).get("repo-key", 1), backup.get("database", {}).get("id"))
        for backup in stanza.get("backup") or ()
    }
    return any((key, number) not in there for key, number in newest.items())


def status(*options: str) -> Status:
    """The status of all repositories, or of the one that the options name.

    Each is read by a command of its own, so that a failure of one does not hide the others.
    """
    seen = {}
    for repo in [options] if options else [(f"--repo={key}",) for key in repository_keys()]:
        key = int(repo[0].removeprefix("--repo="))
        try:
            # pgBackRest itself retries for minutes.
            seen[key] = parse_info(
                json.loads(run_pgbackrest("--output=json", *repo, "info", seconds=60) or "[]", strict=False)
            )
        except Fault as fault:
            faults = [f"repository {key}: {fault}"]
            seen[key] = {"state": "broken", "faults": faults, "backups": [], "archives": [], "system": ""}
    states = {key: one["state"] for key, one in seen.items()}
    return {
        "state": min(states.values(), key=("broken", "absent", "empty", "ok").index),
        "states": states,
        "faults": [fault for one in seen.values() for fault in one["faults"]],
        "backups": sorted((backup for one in seen.values() for backup in one["backups"]), key=lambda one: one["stop"]),
        "archives": [archive for one in seen.values() for archive in one["archives"]],
        "system": next((one["system"] for one in reversed(seen.values()) if one["system"]), ""),
    }


def parse_verify(text: str) -> list[str]:
    """The faults in the output of `verify --output=text --verbose`; output without a status is a fault."""
    faults = [line.strip() for line in text.splitlines() if re.search(r"\bstatus: (?!ok\b|valid\b)", line)]
    faults += [
        line.strip()
        for line in text.splitlines()
        if any(
            int(number) > 0 for number in re.findall(r"(?:missing|checksum invalid|size invalid|other): (\d+)", line)
        )
    ]
    if not re.search(r"^\s*status: ok\s*$", text, re.M):
        faults.append("pgbackrest verify printed no 'status: ok'")
    return list(dict.fromkeys(faults))


def repository_keys() -> list[int]:
    """The numbers of the configured repositories."""
    return [int(number) for number in re.findall(r"^repo(\d+)-type=", CONFIG.read_text(), re.M)]


def for_each_repository(run_for: Callable[[int], None]) -> None:
    """Run a function for every repository, then fail with the faults of all."""
    faults = []
    for key in repository_keys():
        try:
            run_for(key)
        except Fault as fault:
            faults.append(f"repository {key}: {fault}")
    if faults:
        raise Fault("; ".join(faults))


def verify() -> None:
    """Read every object of every repository."""

    def verify_one(key: int) -> None:
        faults = parse_verify(run_pgbackrest(f"--repo={key}", PARALLEL, "--output=text", "--verbose", "verify"))
        if faults:
            raise Fault(
                f"objects are damaged: {'; '.join(faults)[:1500]}. Take a full backup now; "
                "damaged objects can be restored from the bucket's older versions with --repository-time "
                "(docs/runbooks/restore_postgresql.md)"
            )

    for_each_repository(verify_one)


def back_up(kind: str) -> None:
    """Take a backup to every repository, and verify that each has it."""

    def back_up_one(key: int) -> None:
        began = int(time.time())
        run_pgbackrest(f"--type={kind}", f"--repo={key}", "backup")
        seen = status(f"--repo={key}")
        if seen["state"] != "ok":
            raise Fault(f"after a {kind} backup the repository is {seen['state']}: {'; '.join(seen['faults'])}")
        newest = seen["backups"][-1]
        if newest["stop"] < began:
            raise Fault(
                f"the {kind} backup is missing in the repository: the newest is {newest['label']}, which is older"
            )
        if newest["error"]:
            raise Fault(damaged_backup(newest))

    for_each_repository(back_up_one)


def damaged_backup(backup: Json) -> str:
    return f"backup {backup['label']} has damaged pages, which were in the data when it was taken"


# results of past runs, for operators and for Prometheus


def results() -> Json:
    try:
        return dict(json.loads((REPORT_DIRECTORY / "results.json").read_text()))
    except (OSError, ValueError):
        return {}


def metrics(known: Json) -> str:
    """The results in Prometheus' text format, for the textfile collector of its node exporter."""
    lines: list[str] = []

    def add(name: str, meaning: str, values: Sequence[tuple[str, Any]]) -> None:
        if values:
            lines.extend([f"# HELP slipway_postgresql_{name} {meaning}", f"# TYPE slipway_postgresql_{name} gauge"])
            lines.extend(f"slipway_postgresql_{name}{labels} {value}" for labels, value in values)

    add(
        "backup_last_result",
        "1 when the last run of this command succeeded.",
        [
            (f'{{command="{command}"}}', int(result["ok"]))
            for command, result in sorted(known.items())
            if "ok" in result
        ],
    )
    add(
        "backup_last_success_timestamp_seconds",
        "When this command last succeeded.",
        [
            (f'{{command="{command}"}}', result["good"])
            for command, result in sorted(known.items())
            if result.get("good")
        ],
    )
    drill = known.get("drill", {})
    for name, meaning in (
        ("drill_rpo_seconds", "Age of the newest row that the last drill restored."),
        ("drill_rto_seconds", "From the start of the last drill until the restored server accepted writes."),
    ):
        add(name, meaning, [("", drill[name])] if name in drill else [])
    return "".join(f"{line}\n" for line in lines)


def update_result(command: str, change: Callable[[Json], Json]) -> None:
    """Change the result of a command, atomically for readers."""
    if not REPORT_DIRECTORY.is_dir():
        return
    with (REPORT_DIRECTORY / ".lock").open("w") as lock:
        # A backup may end at the same time as a verification or a drill: neither may overwrite the result of the other.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = results()
        known[command] = change(known.get(command, {}))
        for name, text in (("results.json", json.dumps(known, indent=1) + "\n"), ("metrics.prom", metrics(known))):
            half = REPORT_DIRECTORY / f".{name}.{os.getpid()}"
            half.write_text(text)
            half.chmod(0o644)
            half.replace(REPORT_DIRECTORY / name)


def record_start(command: str, began: int) -> None:
    """Record the start of a run beside the last result, for `record_end` in case the run is killed."""
    update_result(command, lambda last: last | {"running": began})


def record_result(command: str, began: int, fault: str = "", **more: Any) -> None:
    """Record the result of a run, with its start time."""
    now = int(time.time())

    def result(last: Json) -> Json:
        good = last.get("good") if fault else now
        return {"began": began, "at": now, "ok": not fault, "good": good, "fault": fault, **more}

    update_result(command, result)


def record_end(command: str, environment: Mapping[str, str]) -> None:
    """Record the failure of a run that was killed; systemd calls this after each run, with its exit status."""
    last = results().get(command, {})
    if environment.get("SERVICE_RESULT") != "success" and ("running" in last or last.get("ok", True)):
        words = " ".join(environment.get(name, "") for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
        fault = f"ended without a result ({words.strip()}). See journalctl --unit slipway-postgresql-backup@{command}"
        began = last.get("running", int(time.time()))
        record_result(command, began, fault, report={"began": format_time(began), "fault": fault})


def longest_interval(calendar: str) -> int | None:
    """The most seconds between two elapses of an OnCalendar; None when it does not repeat or systemd cannot read it."""
    done = subprocess.run(
        # A thousand cover a week of four an hour, and a year of any that is rarer.
        ["systemd-analyze", "calendar", "--iterations=1000", calendar],
        capture_output=True, text=True, errors="replace", check=False, timeout=60,
        env=os.environ | {"TZ": "UTC", "LC_ALL": "C"},
    )  # fmt: skip
    elapses = re.findall(r"(?:Next elapse|Iter\S* #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", done.stdout)
    times = [datetime.fromisoformat(f"{elapse}+00:00") for elapse in elapses]
    return max((int((later - earlier).total_seconds()) for earlier, later in pairwise(times)), default=None)


def schedule() -> Schedule:
    """Command → the longest interval between two runs, and when the timer was written; None without such a timer."""
    planned: dict[str, tuple[int, int] | None] = {}
    for command in RECORDED:
        timer = TIMER_DIRECTORY / f"slipway-postgresql-backup-{command}.timer"
        calendar = re.search(r"^OnCalendar=(.+)$", timer.read_text(), re.M) if timer.exists() else None
        interval = longest_interval(calendar[1]) if calendar else None
        planned[command] = (interval, int(timer.stat().st_mtime)) if interval else None
    return planned


def format_duration(seconds: float) -> str:
    return f"{seconds // 86400} days" if seconds >= 3 * 86400 else f"{seconds // 3600} hours"


def findings(observed: Status, known: Json, now: int, planned: Schedule) -> list[str]:
    """The faults of the backups; `planned` is the schedule, which ages are compared with."""
    found = [f"the backups cannot be used: {fault}" for fault in observed["faults"]]
    found += [damaged_backup(backup) for backup in observed["backups"] if backup["error"]]
    found += [
        f"{command}: there is no timer with a schedule that repeats. Correct postgresql_backup_schedule.{command}, "
        "and run playbooks/postgresql.yml"
        for command in RECORDED
        if planned.get(command) is None
    ]
    # Repositories are backed up one after the other, and a backup may take longer than the previous one.
    took = len(observed["states"]) * max(
        (backup["stop"] - backup["start"] for backup in observed["backups"]), default=0
    )
    for key in sorted(key for key, state in observed["states"].items() if state != "broken"):
        backups = [backup for backup in observed["backups"] if backup["repository"] == key]
        if observed["states"][key] != "ok":
            found.append(f"repository {key}: there is no backup of this database. Run playbooks/postgresql.yml")
            continue
        for number, kind in enumerate(BACKUPS, 1):
            # A full backup counts as a differential one, and both as an incremental one.
            kinds = BACKUPS[:number]
            age = now - max((backup["stop"] for backup in backups if backup["type"] in kinds), default=0)
            entry = planned.get(kind)
            if entry and age > entry[0] + took + SCHEDULE_MARGIN_SECONDS:
                found.append(
                    f"repository {key}: the newest {' or '.join(kinds)} backup is {format_duration(age)} old, and "
                    f"postgresql_backup_schedule.{kind} takes one at least every {format_duration(entry[0])}"
                )
    found += [
        f"the last {command} failed at {format_time(result['at'])}: {result['fault']}"
        for command, result in sorted(known.items())
        if not result.get("ok", True)
    ]
    for command in ("verify", "drill"):
        entry = planned.get(command)
        if not entry:
            continue
        result, (interval, since) = known.get(command, {}), entry
        # A command that never succeeded is due one interval after it was scheduled.
        age = now - (result.get("good") or since)
        if age > interval + result.get("at", 0) - result.get("began", result.get("at", 0)) + SCHEDULE_MARGIN_SECONDS:
            last = (
                f"last succeeded {format_duration(age)} ago"
                if result.get("good")
                else "has never succeeded on this host"
            )
            found.append(
                f"{command}: {last}, and postgresql_backup_schedule.{command} runs it at least every "
                f"{format_duration(interval)}. Run systemctl start slipway-postgresql-backup@{command}"
            )
    return found


# recovery targets


def parse_time(text: str, example: str = "2026-11-21 10:15:00+00:00") -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Fault(
            f"{text!r} is not a recovery target. Use latest, a time with its zone ({example}), or name:<restore point>"
        ) from None
    if found.tzinfo is None:
        raise Fault(f"{text!r} has no zone. Append it to the time, such as {text}+00:00")
    return found


def target_options(target: str, backups: Sequence[Json], now: datetime) -> list[str]:
    """Options of restore for `latest`, a time with its zone, or `name:<restore point>`; a Fault when it is unreachable.

    `name:<restore point>@<a time before it, with zone>` starts from the last backup before that time.
    """
    usable = [backup for backup in backups if not backup.get("error")]
    if not usable:
        flaw = " without damaged pages" if backups else ""
        raise Fault(f"the repository holds no backup{flaw}")
    # pgBackRest itself starts from the newest backup, damaged or not.
    chosen = [f"--set={max(usable, key=lambda backup: backup['stop'])['label']}"] if len(usable) < len(backups) else []
    if target == "latest":
        return ["--type=default", *chosen]
    if target.startswith("name:"):
        name, _, before = target.removeprefix("name:").partition("@")
        options = ["--type=name", f"--target={name}", "--target-action=promote"]
        if before:
            chosen = [f"--set={_last_backup_before(parse_time(before), usable, target)['label']}"]
        return [*options, *chosen]
    wanted = parse_time(target)
    first = _last_backup_before(wanted, usable, target)
    if wanted > now:
        raise Fault(f"{target} cannot be reached: it is in the future (now is {now:%Y-%m-%d %H:%M:%S+00:00})")
    text = wanted.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    return [
        "--type=time",
        f"--target={text}",
        "--target-action=promote",
        *([f"--set={first['label']}"] if chosen else []),
    ]


def _last_backup_before(wanted: datetime, backups: Sequence[Json], target: str) -> Json:
    found = [backup for backup in backups if backup["stop"] < wanted.timestamp()]
    if not found:
        earliest = format_time(min(backup["stop"] for backup in backups))
        raise Fault(f"{target} cannot be reached: the oldest backup ended at {earliest}")
    return max(found, key=lambda backup: backup["stop"])


def require_free_space(path: Path, needed: int) -> None:
    """Require enough free space for the restored data, and a tenth more for WAL, before anything is fetched."""
    free = shutil.disk_usage(path).free
    wanted = needed + needed // 10 + 256 * 1024**2
    if free < wanted:
        raise Fault(
            f"{path}: {free // 1024**2} MB free, and the restored data needs {wanted // 1024**2} MB. Increase the "
            "volume (provision_volumes), or move previous data directories away (*.before-*)"
        )
