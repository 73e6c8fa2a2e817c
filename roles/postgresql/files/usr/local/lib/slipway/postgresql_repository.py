# Written by the role postgresql. Changes made here are overwritten.
"""What pgBackRest says, read for what it means.

Its `info` and `verify` end with 0 whatever they find: here their words are read, and faults are sentences.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

STANZA = "main"
CONFIG = Path("/etc/pgbackrest/pgbackrest.conf")
REPORTS = Path("/var/lib/slipway-postgresql")
TIMERS = Path("/etc/systemd/system")
BACKUPS = ("full", "diff", "incr")
RECORDED = (*BACKUPS, "verify", "drill")
"""Commands that have a timer, and whose result is kept."""
OK, NO_STANZA_PATH, NO_BACKUP, NO_STANZA_DATA = 0, 1, 2, 3
MANY = "--process-max=8"
"""Whoever reads the bucket waits for answers more than he works."""
MARGIN_SECONDS = 2 * 3600
"""Beyond the schedule: what a timer is delayed by, and an hour of summer time."""
LONGEST_SECONDS = 24 * 3600
"""For what reads or writes a whole database. Later it is known to hang."""
STATEMENT_SECONDS = 600
# pgBackRest's own words, and what somebody has to do about them.
HINTS = (
    (
        r"CryptoError|cipher header invalid|found outside of section",
        "the passphrase is another one than that of the first backup",
    ),
    (r"HostConnectError|unable to get address|timeout connecting", "the bucket's host cannot be reached from here"),
    (
        r"CertificateError|unable to verify certificate|certificate",
        "the certificate of the bucket's host is not believed",
    ),
    (r"SignatureDoesNotMatch|InvalidAccessKeyId", "the bucket does not know this pair of keys"),
    (r"AccessDenied", "the bucket refuses what this pair of keys asks for"),
    (r"ChecksumError|ZSTD|zst|decompress|checksum", "an object in the bucket is damaged"),
    (r"No space left|ENOSPC", "the volume is full"),
)


def moment(seconds):
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S+00:00}"


class Fault(Exception):
    """A sentence for people."""


def plain(text, length=700):
    """pgBackRest's words without the noise that it puts around them, and with what they mean."""
    words = " ".join(re.sub(r"^\d{4}-\d\d-\d\d \S+ P\d+ +(ERROR|WARN): ", "", line) for line in text.splitlines())
    # What a wrong passphrase makes of a file is shown by pgBackRest as it is.
    words = re.sub(r"(found outside of section at line \d+):.*", r"\1", words)
    words = " ".join(re.sub(r"[^\x20-\x7e]+", " ", words).split())
    hints = [hint for pattern, hint in HINTS if re.search(pattern, words)][:1]
    return "; ".join([*hints, words[-length:]]) if words else "it said nothing"


def run(*arguments, seconds=LONGEST_SECONDS):
    command = ["pgbackrest", f"--stanza={STANZA}", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise Fault(
            f"the bucket does not answer within {seconds} seconds; see /var/log/pgbackrest and the network"
        ) from None
    if done.returncode != 0:
        verb = next(word for word in reversed(arguments) if not word.startswith("-"))
        raise Fault(f"pgbackrest {verb} failed ({done.returncode}): {plain(done.stderr or done.stdout)}")
    return done.stdout


def option(name):
    """A value of pgBackRest's configuration."""
    found = re.search(rf"^{re.escape(name)}=(.*)$", CONFIG.read_text(), re.M)
    if found is None:
        raise Fault(f"{CONFIG} does not say {name}; run playbooks/postgresql.yml")
    return found[1].strip()


def psql_command(*connection, **variables):
    """psql as every statement here is run. It quotes the variables where a statement names them: :'name', :"name"."""
    given = [f"--set={name}={value}" for name, value in variables.items()]
    return ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", *given,
            "--username=postgres", *connection]  # fmt: skip


def psql(statement, database="postgres", **variables):
    """Ask the server that runs here."""
    try:
        done = subprocess.run(
            psql_command("--dbname", database, **variables),
            input=statement, capture_output=True, text=True, check=False, cwd="/", timeout=STATEMENT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Fault(f"PostgreSQL: a statement runs for longer than {STATEMENT_SECONDS} seconds") from None
    if done.returncode != 0:
        raise Fault(f"PostgreSQL does not answer: {' '.join(done.stderr.split())[:500]}")
    return done.stdout.strip()


def answers():
    """Whether a server runs here."""
    # pg_isready gives up by itself after 3 seconds.
    return (
        subprocess.run(["pg_isready", "--quiet", "--username=postgres"], check=False, cwd="/", timeout=60).returncode
        == 0
    )


def follows():
    """Whether this is a standby: backups, heartbeats and verification are its primary's business."""
    return psql("SELECT pg_is_in_recovery()") == "t"


# the repository


def judge(info):
    """What `info --output=json` means: state absent, empty, ok or broken, faults in words, the backups and the WAL, and
    whose they are: the identifier of the database system."""
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
        f"repository {repository['key']}: {plain(repository['status']['message'])}"
        for repository in repositories
        if repository["status"]["code"] not in (OK, NO_STANZA_PATH, NO_BACKUP, NO_STANZA_DATA)
    ]
    if faults:
        state = "broken"
    elif any(code in (NO_STANZA_PATH, NO_STANZA_DATA) for code in codes.values()):
        state = "absent"
    elif any(code == NO_BACKUP for code in codes.values()) or _of_others_alone(stanza):
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


def _of_others_alone(stanza):
    """Whether a repository knows of a newer database than all its backups are of."""
    newest = {}
    for known in stanza.get("db") or ():
        key = known.get("repo-key", 1)
        newest[key] = max(newest.get(key, 0), known["id"])
    there = {
        (backup.get("database", {}).get("repo-key", 1), backup.get("database", {}).get("id"))
        for backup in stanza.get("backup") or ()
    }
    return any((key, number) not in there for key, number in newest.items())


def status(*options):
    """The status of all repositories, or of the one that the options name.

    Each is read by a command of its own: one that does not answer hides nothing of the others.
    """
    seen = {}
    for repo in [options] if options else [(f"--repo={key}",) for key in keys()]:
        key = int(repo[0].removeprefix("--repo="))
        try:
            # pgBackRest itself would try for minutes.
            seen[key] = judge(json.loads(run("--output=json", *repo, "info", seconds=60) or "[]", strict=False))
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


def faults_of_verify(text):
    """What `verify --output=text --verbose` found: silence is no proof."""
    faults = [line.strip() for line in text.splitlines() if re.search(r"\bstatus: (?!ok\b|valid\b)", line)]
    faults += [
        line.strip()
        for line in text.splitlines()
        if any(
            int(number) > 0 for number in re.findall(r"(?:missing|checksum invalid|size invalid|other): (\d+)", line)
        )
    ]
    if not re.search(r"^\s*status: ok\s*$", text, re.M):
        faults.append("it does not say that all is well")
    return list(dict.fromkeys(faults))


def keys():
    """The repositories by their numbers."""
    return [int(number) for number in re.findall(r"^repo(\d+)-type=", CONFIG.read_text(), re.M)]


def each(run_for):
    """Run a function for every repository, and fail afterwards with the faults of all."""
    faults = []
    for key in keys():
        try:
            run_for(key)
        except Fault as fault:
            faults.append(f"repository {key}: {fault}")
    if faults:
        raise Fault("; ".join(faults))


def verify():
    """Read every object of every repository."""

    def verify_one(key):
        faults = faults_of_verify(run(f"--repo={key}", MANY, "--output=text", "--verbose", "verify"))
        if faults:
            raise Fault(
                f"objects are damaged: {'; '.join(faults)[:1500]}. Take a full backup now; "
                "what is damaged can be restored from the bucket's older versions, by --repository-time "
                "(docs/runbooks/restore_postgresql.md)"
            )

    each(verify_one)


def back_up(kind):
    """Take a backup into every repository, and read from each that it has arrived."""

    def back_up_one(key):
        began = int(time.time())
        run(f"--type={kind}", f"--repo={key}", "backup")
        seen = status(f"--repo={key}")
        if seen["state"] != "ok":
            raise Fault(f"after a {kind} backup the repository is {seen['state']}: {'; '.join(seen['faults'])}")
        newest = seen["backups"][-1]
        if newest["stop"] < began:
            raise Fault(f"the {kind} backup did not arrive: the newest is {newest['label']}, from before it")
        if newest["error"]:
            raise Fault(damage(newest))

    each(back_up_one)


def damage(backup):
    return f"backup {backup['label']} has damaged pages, which the data had when it was taken"


# what has happened, for people and for Prometheus


def results():
    try:
        return dict(json.loads((REPORTS / "results.json").read_text()))
    except (OSError, ValueError):
        return {}


def metrics(known):
    """Prometheus' text format, as its node exporter reads it from files."""
    lines = []

    def say(name, meaning, values):
        if values:
            lines.extend([f"# HELP slipway_postgresql_{name} {meaning}", f"# TYPE slipway_postgresql_{name} gauge"])
            lines.extend(f"slipway_postgresql_{name}{labels} {value}" for labels, value in values)

    say(
        "backup_last_result",
        "1 when the last run of this command went well.",
        [
            (f'{{command="{command}"}}', int(result["ok"]))
            for command, result in sorted(known.items())
            if "ok" in result
        ],
    )
    say(
        "backup_last_success_timestamp_seconds",
        "When this command last went well.",
        [
            (f'{{command="{command}"}}', result["good"])
            for command, result in sorted(known.items())
            if result.get("good")
        ],
    )
    drill = known.get("drill", {})
    for name, meaning in (
        ("drill_rpo_seconds", "Age of the newest row that the last drill brought back."),
        ("drill_rto_seconds", "From the start of the last drill until the restored server took writes."),
    ):
        say(name, meaning, [("", drill[name])] if name in drill else [])
    return "".join(f"{line}\n" for line in lines)


def update(command, change):
    """Change the result of a command. Readers see the old or the new, never half."""
    if not REPORTS.is_dir():
        return
    with (REPORTS / ".lock").open("w") as lock:
        # A backup may end while a verification or a drill does: neither may write back what the other has replaced.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = results()
        known[command] = change(known.get(command, {}))
        for name, text in (("results.json", json.dumps(known, indent=1) + "\n"), ("metrics.prom", metrics(known))):
            half = REPORTS / f".{name}.{os.getpid()}"
            half.write_text(text)
            half.chmod(0o644)
            half.replace(REPORTS / name)


def note_start(command, began):
    """Record beside the last result that a run has begun, for `note_end` in case the run cannot record its own end."""
    update(command, lambda last: last | {"running": began})


def note(command, began, fault="", **more):
    """Record the result of a run, with the time at which that run began."""
    now = int(time.time())

    def result(last):
        good = last.get("good") if fault else now
        return {"began": began, "at": now, "ok": not fault, "good": good, "fault": fault, **more}

    update(command, result)


def note_end(command, environment):
    """Record the failure of a run that was killed: systemd calls this after each, with how the run ended."""
    last = results().get(command, {})
    if environment.get("SERVICE_RESULT") != "success" and ("running" in last or last.get("ok", True)):
        words = " ".join(environment.get(name, "") for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
        fault = (
            f"it ended without a result ({words.strip()}); see journalctl --unit slipway-postgresql-backup@{command}"
        )
        began = last.get("running", int(time.time()))
        note(command, began, fault, report={"began": moment(began), "fault": fault})


def longest_interval(calendar):
    """The most seconds between two elapses of an OnCalendar; None when it does not repeat or systemd cannot read it."""
    done = subprocess.run(
        # A thousand cover a week of four an hour, and a year of any that is rarer.
        ["systemd-analyze", "calendar", "--iterations=1000", calendar],
        capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"TZ": "UTC", "LC_ALL": "C"},
    )  # fmt: skip
    elapses = re.findall(r"(?:Next elapse|Iter\S* #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", done.stdout)
    times = [datetime.fromisoformat(f"{elapse}+00:00") for elapse in elapses]
    return max((int((later - earlier).total_seconds()) for earlier, later in pairwise(times)), default=None)


def schedule():
    """Command → the longest interval between two runs, and since when the timer says so; None without such a timer."""
    planned = {}
    for command in RECORDED:
        timer = TIMERS / f"slipway-postgresql-backup-{command}.timer"
        calendar = re.search(r"^OnCalendar=(.+)$", timer.read_text(), re.M) if timer.exists() else None
        interval = longest_interval(calendar[1]) if calendar else None
        planned[command] = (interval, int(timer.stat().st_mtime)) if interval else None
    return planned


def span(seconds):
    return f"{seconds // 86400} days" if seconds >= 3 * 86400 else f"{seconds // 3600} hours"


def findings(seen, known, now, planned):
    """What is wrong with backups, as sentences; `planned` is the schedule, by which ages are judged."""
    found = [f"the backups cannot be used: {fault}" for fault in seen["faults"]]
    found += [damage(backup) for backup in seen["backups"] if backup["error"]]
    found += [
        f"{command}: there is no timer with a schedule that repeats. Correct postgresql_backup_schedule.{command}, "
        "and run playbooks/postgresql.yml"
        for command in RECORDED
        if planned.get(command) is None
    ]
    # One repository gets its backup after the other, and a backup may take longer than the one before.
    took = len(seen["states"]) * max((backup["stop"] - backup["start"] for backup in seen["backups"]), default=0)
    for key in sorted(key for key, state in seen["states"].items() if state != "broken"):
        backups = [backup for backup in seen["backups"] if backup["repository"] == key]
        if seen["states"][key] != "ok":
            found.append(f"repository {key}: there is no backup of this database. Run playbooks/postgresql.yml")
            continue
        for number, kind in enumerate(BACKUPS, 1):
            # A full backup is as good as a differential one, and both as an incremental one.
            kinds = BACKUPS[:number]
            age = now - max((backup["stop"] for backup in backups if backup["type"] in kinds), default=0)
            if planned.get(kind) and age > planned[kind][0] + took + MARGIN_SECONDS:
                found.append(
                    f"repository {key}: the newest {' or '.join(kinds)} backup is {span(age)} old, and "
                    f"postgresql_backup_schedule.{kind} takes one at least every {span(planned[kind][0])}"
                )
    found += [
        f"the last {command} failed at {moment(result['at'])}: {result['fault']}"
        for command, result in sorted(known.items())
        if not result.get("ok", True)
    ]
    for command in ("verify", "drill"):
        if not planned.get(command):
            continue
        result, (interval, since) = known.get(command, {}), planned[command]
        # Of what never succeeded only the first is awaited, from when it was scheduled.
        age = now - (result.get("good") or since)
        if age > interval + result.get("at", 0) - result.get("began", result.get("at", 0)) + MARGIN_SECONDS:
            last = f"last succeeded {span(age)} ago" if result.get("good") else "has never succeeded on this host"
            found.append(
                f"{command}: it {last}, and postgresql_backup_schedule.{command} runs it at least every "
                f"{span(interval)}. Run systemctl start slipway-postgresql-backup@{command}"
            )
    return found


# where to


def instant(text, example="2026-11-21 10:15:00+00:00"):
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Fault(
            f"{text!r} is no target; write latest, a time with its zone ({example}), or name:<restore point>"
        ) from None
    if found.tzinfo is None:
        raise Fault(f"{text!r} has no zone; write it behind the time, such as {text}+00:00")
    return found


def target_options(target, backups, now):
    """Options of restore for `latest`, a time with its zone, or `name:<restore point>`; a Fault when out of reach.

    `name:<restore point>@<a time before it, with zone>` begins with the last backup from before that time.
    """
    whole = [backup for backup in backups if not backup.get("error")]
    if not whole:
        flaw = " without damaged pages" if backups else ""
        raise Fault(f"the repository holds no backup{flaw}; there is nothing to restore from")
    # By itself pgBackRest begins with the newest, whatever it is like.
    chosen = [f"--set={max(whole, key=lambda backup: backup['stop'])['label']}"] if len(whole) < len(backups) else []
    if target == "latest":
        return ["--type=default", *chosen]
    if target.startswith("name:"):
        name, _, before = target.removeprefix("name:").partition("@")
        options = ["--type=name", f"--target={name}", "--target-action=promote"]
        if before:
            chosen = [f"--set={_last_before(instant(before), whole, target)['label']}"]
        return [*options, *chosen]
    wanted = instant(target)
    first = _last_before(wanted, whole, target)
    if wanted > now:
        raise Fault(f"{target} cannot be reached: it is {now:%Y-%m-%d %H:%M:%S+00:00} now")
    text = wanted.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    return [
        "--type=time",
        f"--target={text}",
        "--target-action=promote",
        *([f"--set={first['label']}"] if chosen else []),
    ]


def _last_before(wanted, backups, target):
    found = [backup for backup in backups if backup["stop"] < wanted.timestamp()]
    if not found:
        earliest = moment(min(backup["stop"] for backup in backups))
        raise Fault(f"{target} cannot be reached: the oldest backup ended at {earliest}")
    return max(found, key=lambda backup: backup["stop"])


def room(path, needed):
    """Refuse before anything is fetched when it would not fit, with a tenth to spare for WAL."""
    free = shutil.disk_usage(path).free
    wanted = needed + needed // 10 + 256 * 1024**2
    if free < wanted:
        raise Fault(
            f"{path} has {free // 1024**2} MB free, and the restored data needs {wanted // 1024**2} MB beside what is "
            "there; give the volume more GB (provision_volumes), or move older copies away (*.before-*)"
        )
