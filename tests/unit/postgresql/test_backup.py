"""What pgBackRest's words mean, which ends with 0 whatever it found: its answers as version 2.55 gives them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from postgresql_backup import cli, recovery
from postgresql_backup import repository as backup

from tests.static.repository import REPOSITORY

ROLE = REPOSITORY / "roles/postgresql_backup"
HOUR, DAY = 3600, 86400
PLANNED = {
    "full": (7 * DAY, 0),
    "diff": (2 * DAY, 0),
    "incr": (12 * HOUR, 0),
    "verify": (7 * DAY, 0),
    "drill": (35 * DAY, 0),
}
"""The schedule of the role's defaults."""

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TAKEN = {
    "label": "20261121-095838F",
    "type": "full",
    "database": {"repo-key": 1},
    "timestamp": {"start": 1795255118, "stop": 1795255127},
    "error": False,
}
INTACT = """stanza: main
status: ok
  archiveId: 17-1, total WAL checked: 7, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-095838F, status: valid, total files checked: 1264, total valid files: 1264
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""
DAMAGED = """stanza: main
status: error
  archiveId: 17-1, total WAL checked: 7, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-095838F, status: invalid, total files checked: 1264, total valid files: 1263
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
"""


def info(code: int, message: str, *backups: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": "main",
            "status": {"code": code, "message": message},
            "repo": [{"key": 1, "status": {"code": code, "message": message}}],
            "backup": list(backups),
        }
    ]


@pytest.mark.parametrize(
    ("output", "state", "faults"),
    [
        ([], "absent", []),
        (info(1, "missing stanza path"), "absent", []),
        (info(3, "missing stanza data"), "absent", []),
        (info(2, "no valid backups"), "empty", []),
        (info(0, "ok", TAKEN), "ok", []),
        (info(99, "other"), "broken", ["repository 1: other"]),
        (info(0, "ok", TAKEN | {"error": True}), "ok", []),
    ],
)
def test_what_a_repository_is(output: list[dict[str, Any]], state: str, faults: list[str]) -> None:
    parsed = backup.parse_info(output)
    assert (parsed["state"], parsed["faults"]) == (state, faults)


def test_one_repository_of_two_that_is_empty_is_filled() -> None:
    output = info(4, "different across repos", TAKEN)
    output[0]["repo"] = [
        {"key": 1, "status": {"code": 0, "message": "ok"}},
        {"key": 2, "status": {"code": 2, "message": "no valid backups"}},
    ]
    assert backup.parse_info(output)["state"] == "empty"


class Buckets:
    """pgBackRest with two repositories, of which some fail or lose what is written to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: set[int], forgetful: frozenset[int] = frozenset()):
        self.failing, self.forgetful = failing, forgetful
        self.stops = {1: [1795255127], 2: [1795255127]}
        self.calls: list[tuple[str, int]] = []
        monkeypatch.setattr(backup, "repository_keys", lambda: [1, 2])
        monkeypatch.setattr(backup, "run_pgbackrest", self.run)

    def run(self, *arguments: str, seconds: int | None = None) -> str:
        (repository,) = (word for word in arguments if word.startswith("--repo="))
        key, verb = int(repository.removeprefix("--repo=")), arguments[-1]
        self.calls.append((verb, key))
        if key in self.failing:
            raise backup.Fault(f"pgbackrest {verb} failed (49): the bucket does not answer")
        if verb == "backup" and key not in self.forgetful:
            self.stops[key].append(int(time.time()))
        if verb == "verify":
            return INTACT
        taken = [
            TAKEN | {"label": f"{stop}F", "database": {"repo-key": key}, "timestamp": {"start": stop - 9, "stop": stop}}
            for stop in self.stops[key]
        ]
        output = info(0, "ok", *taken)
        output[0]["repo"][0]["key"] = key
        return json.dumps(output)


@pytest.mark.parametrize("failing", [{1}, {2}, {1, 2}], ids=str)
@pytest.mark.parametrize(("command", "verb"), [("full", "backup"), ("verify", "verify")])
def test_a_repository_that_fails_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, command: str, verb: str, failing: set[int]
) -> None:
    buckets = Buckets(monkeypatch, failing)
    with pytest.raises(backup.Fault) as fault:
        backup.verify() if command == "verify" else backup.back_up(command)
    assert [key for called, key in buckets.calls if called == verb] == [1, 2]
    assert [key for key in (1, 2) if f"repository {key}: pgbackrest {verb} failed" in str(fault.value)] == sorted(
        failing
    )


def test_a_backup_that_does_not_arrive_in_the_second_repository_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    Buckets(monkeypatch, set(), frozenset({2}))
    with pytest.raises(
        backup.Fault, match=r"^repository 2: the full backup is missing in the repository: the newest is 1795255127F"
    ):
        backup.back_up("full")


def test_two_intact_repositories_have_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    Buckets(monkeypatch, set())
    backup.back_up("full")
    backup.verify()
    assert backup.status()["states"] == {1: "ok", 2: "ok"}


def test_a_repository_that_does_not_answer_hides_nothing_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    Buckets(monkeypatch, {1})
    seen = backup.status()
    assert (seen["state"], seen["states"]) == ("broken", {1: "broken", 2: "ok"})
    assert seen["faults"] == ["repository 1: pgbackrest info failed (49): the bucket does not answer"]
    assert [one["repository"] for one in seen["backups"]] == [2]


@pytest.mark.parametrize(("queried", "broken"), [(0, 2), (2, 1)])
def test_a_restore_needs_no_repository_but_its_own(monkeypatch: pytest.MonkeyPatch, queried: int, broken: int) -> None:
    Buckets(monkeypatch, {broken})
    wanted = SimpleNamespace(target="latest", timeline="", repository=queried, repository_time="")
    seen, _source, _where = recovery.resolve_target(wanted)
    assert {one["repository"] for one in seen["backups"]} == {queried or 1}


def test_an_intact_repository_has_no_faults() -> None:
    assert backup.parse_verify(INTACT) == []


def test_damage_is_named() -> None:
    found = "; ".join(backup.parse_verify(DAMAGED))
    assert "status: error" in found and "20261121-095838F, status: invalid" in found and "checksum invalid: 1" in found


def test_silence_is_no_proof() -> None:
    assert backup.parse_verify("") == ["pgbackrest verify printed no 'status: ok'"]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("latest", ["--type=default"]),
        (
            "name:before-release@2026-11-21 11:00:00+00:00",
            [
                "--type=name",
                "--target=before-release",
                "--target-action=promote",
                "--set=20261121-095838F",
            ],
        ),
        ("name:before-release", ["--type=name", "--target=before-release", "--target-action=promote"]),
        (
            "2026-11-21 12:30:00+02:00",
            ["--type=time", "--target=2026-11-21 10:30:00.000000+00", "--target-action=promote"],
        ),
    ],
)
def test_targets(target: str, options: list[str]) -> None:
    assert backup.target_options(target, backup.parse_info(info(0, "ok", TAKEN))["backups"], NOW) == options


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("yesterday", "is not a recovery target. Use latest, a time with its zone"),
        ("2026-11-21 10:30:00", "has no zone"),
        ("2026-11-21 09:00:00+00:00", "the oldest backup ended at 2026-11-21 09:58:47"),
        ("2026-11-22 09:00:00+00:00", "now is 2026-11-21 12:00:00"),
        ("name:release@2026-11-21 09:00:00+00:00", "the oldest backup ended at 2026-11-21 09:58:47"),
        ("name:release@yesterday", "is not a recovery target"),
    ],
)
def test_targets_that_cannot_be_reached(target: str, message: str) -> None:
    with pytest.raises(backup.Fault, match=message):
        backup.target_options(target, backup.parse_info(info(0, "ok", TAKEN))["backups"], NOW)


def test_backups_of_a_former_database_are_none_of_this_one() -> None:
    (stanza,) = info(0, "ok", TAKEN | {"database": {"repo-key": 1, "id": 1}})
    former = {"id": 1, "repo-key": 1, "system-id": 7041}
    assert backup.parse_info([stanza | {"db": [former]}])["state"] == "ok"
    seen = backup.parse_info([stanza | {"db": [former, former | {"id": 2, "system-id": 7042}]}])
    assert (seen["state"], seen["system"]) == ("empty", "7042")


def test_no_restore_starts_from_a_backup_with_damaged_pages() -> None:
    later = TAKEN | {"label": "20261121-105838F", "timestamp": {"start": 1795258718, "stop": 1795258727}, "error": True}
    seen = backup.parse_info(info(0, "ok", TAKEN, later))
    assert backup.findings(seen | {"states": {1: "ok"}}, results(), 1795258800, PLANNED) == [
        "backup 20261121-105838F has damaged pages, which were in the data when it was taken"
    ]
    start_option = f"--set={TAKEN['label']}"
    assert backup.target_options("latest", seen["backups"], NOW) == ["--type=default", start_option]
    assert backup.target_options("2026-11-21 11:30:00+00:00", seen["backups"], NOW)[-1] == start_option
    assert backup.target_options("name:before", seen["backups"], NOW)[-1] == start_option
    with pytest.raises(backup.Fault, match="no backup without damaged pages"):
        backup.target_options("latest", [seen["backups"][1]], NOW)


def test_an_empty_repository_has_no_target() -> None:
    with pytest.raises(backup.Fault, match="holds no backup"):
        backup.target_options("latest", [], NOW)


@pytest.mark.parametrize(
    ("output", "means"),
    [
        ("ERROR: [029]: CryptoError: unable to decrypt", "the passphrase differs"),
        ("[FormatError] key/value found outside of section at line 1: \x97\ufffd$x", "the passphrase differs"),
        ("ERROR: [124]: HostConnectError: unable to get address", "the bucket's host cannot be reached"),
        ("<Code>InvalidAccessKeyId</Code>", "the bucket rejects this pair of keys as unknown"),
        (
            "unable to verify certificate presented by 's3:443'",
            "the certificate of the bucket's host cannot be verified",
        ),
        ("unable to write: [28] No space left on device", "the volume is full"),
        ("", "no output"),
    ],
)
def test_pgbackrests_words_are_explained(output: str, means: str) -> None:
    assert backup.summarize(output).startswith(means)


ENDED = 1795255127


def results(**more: dict[str, Any]) -> dict[str, Any]:
    """Every recorded command went well a moment ago, but for what is named."""
    well = {"began": ENDED - 60, "at": ENDED, "ok": True, "good": ENDED, "fault": ""}
    return dict.fromkeys(backup.RECORDED, well) | more


def drilled(ok: bool, at: int, **more: Any) -> dict[str, Any]:
    fault = "" if ok else "it is damaged"
    return results(drill={"began": at - 60, "at": at, "ok": ok, "good": at, "fault": fault, **more})


def late(command: str, last: str, interval: str) -> list[str]:
    return [
        f"{command}: {last}, and postgresql_backup_schedule.{command} runs it at least every {interval}. "
        f"Run systemctl start slipway-postgresql-backup@{command}"
    ]


def old(kinds: str, age: str, interval: str) -> list[str]:
    kind = kinds.split()[-1]
    return [
        f"repository 1: the newest {kinds} backup is {age} old, and postgresql_backup_schedule.{kind} takes one at "
        f"least every {interval}"
    ]


EMPTY = "repository 1: there is no backup of this database. Run playbooks/postgresql.yml"
NEVER = "has never succeeded on this host"
LONG = TAKEN | {"timestamp": {"start": ENDED - 4 * HOUR, "stop": ENDED}}
LATER = TAKEN | {"type": "incr", "timestamp": {"start": ENDED + 8 * DAY, "stop": ENDED + 8 * DAY}}


@pytest.mark.parametrize(
    ("seen", "known", "planned", "later", "message"),
    [
        (info(0, "ok", TAKEN), results(), {}, 3600, []),
        (info(2, "no valid backups"), results(), {}, 0, [EMPTY]),
        # All that it holds is of the database that was here before.
        ([info(0, "ok", TAKEN)[0] | {"db": [{"id": 7, "repo-key": 1, "system-id": 7042}]}], results(), {}, 0, [EMPTY]),
        (info(99, "other"), results(), {}, 0, ["the backups cannot be used: repository 1: other"]),
        (info(0, "ok", TAKEN), results(), {}, 14 * HOUR, []),
        (info(0, "ok", TAKEN), results(), {}, 15 * HOUR,
         old("full or diff or incr", "15 hours", "12 hours")),
        (info(0, "ok", TAKEN), results(), {"incr": (HOUR, 0)}, 4 * HOUR,
         old("full or diff or incr", "4 hours", "1 hours")),
        # A full backup that took four hours may take them again.
        (info(0, "ok", LONG), results(), {}, 17 * HOUR, []),
        # What adds to a full one that nobody takes any more.
        (info(0, "ok", TAKEN, LATER), results(), {"diff": (30 * DAY, 0), "verify": (30 * DAY, 0)}, 8 * DAY,
         old("full", "8 days", "7 days")),
        (info(0, "ok", TAKEN), drilled(False, ENDED), {}, 0,
         ["the last drill failed at 2026-11-21 09:58:47+00:00: it is damaged"]),
        (info(0, "ok", TAKEN), drilled(True, ENDED - 34 * DAY), {}, 0, []),
        (info(0, "ok", TAKEN), drilled(True, ENDED - 40 * DAY), {}, 0,
         late("drill", "last succeeded 40 days ago", "35 days")),
        (info(0, "ok", TAKEN), drilled(True, ENDED - 40 * DAY), {"drill": (92 * DAY, 0)}, 0, []),
        (info(0, "ok", TAKEN), results(drill={}), {}, 0, late("drill", NEVER, "35 days")),
        (info(0, "ok", TAKEN), results(verify={}), {}, 0, late("verify", NEVER, "7 days")),
        # Scheduled an hour ago, it is not due.
        (info(0, "ok", TAKEN), results(drill={}), {"drill": (35 * DAY, ENDED - HOUR)}, 0, []),
        (info(0, "ok", TAKEN), results(), {"drill": None}, 0,
         ["drill: there is no timer with a schedule that repeats. Correct postgresql_backup_schedule.drill, and run "
          "playbooks/postgresql.yml"]),
    ],
)  # fmt: skip
def test_findings(
    seen: list[dict[str, Any]], known: dict[str, Any], planned: dict[str, Any], later: int, message: list[str]
) -> None:
    parsed = backup.parse_info(seen)
    parsed |= {"states": {1: parsed["state"]}}
    assert backup.findings(parsed, known, ENDED + later, PLANNED | planned) == message


def test_an_old_second_repository_is_found_beside_a_fresh_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = Buckets(monkeypatch, set())
    buckets.stops[1].append(ENDED + 27 * HOUR)
    (found,) = backup.findings(backup.status(), results(), ENDED + 27 * HOUR, PLANNED)
    assert found.startswith("repository 2: the newest full or diff or incr backup is 27 hours old")


@pytest.mark.parametrize(
    ("calendar", "longest"),
    [
        ("Sun 01:00", 7 * DAY),
        ("Mon..Sat 01:00", 2 * DAY),
        ("07,13,19:00", 12 * HOUR),
        ("Sun *-*-01..07 05:00", 35 * DAY),
        ("Mon..Fri *:0/15", 2 * DAY + 900),
        ("hourly", HOUR),
        ("Sun 01:00 Europe/Berlin", 7 * DAY + HOUR),
        ("2020-01-01", None),
        ("2099-01-01", None),
        ("every now and then", None),
    ],
)
def test_the_longest_interval_is_systemds(calendar: str, longest: int | None) -> None:
    assert backup.longest_interval(calendar) == longest


def test_the_schedule_is_that_of_the_timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "TIMER_DIRECTORY", tmp_path)
    for command, calendar in (("full", "Sun 01:00"), ("drill", "nonsense")):
        (tmp_path / f"slipway-postgresql-backup-{command}.timer").write_text(f"[Timer]\nOnCalendar={calendar}\n")
    os.utime(tmp_path / "slipway-postgresql-backup-full.timer", (ENDED, ENDED))
    assert backup.schedule() == dict.fromkeys(backup.RECORDED) | {"full": (7 * DAY, ENDED)}


def test_metrics_are_what_prometheus_reads() -> None:
    known = drilled(True, 9, drill_rpo_seconds=12.5, drill_rto_seconds=3) | {"full": {"ok": False, "good": 7}}
    text = backup.metrics(known)
    assert 'slipway_postgresql_backup_last_result{command="full"} 0\n' in text
    assert 'slipway_postgresql_backup_last_success_timestamp_seconds{command="drill"} 9\n' in text
    assert "slipway_postgresql_drill_rpo_seconds 12.5\n" in text
    assert all(line.startswith(("# HELP", "# TYPE", "slipway_postgresql_")) for line in text.splitlines())


@pytest.mark.parametrize(
    ("position", "complete"), [("0/5000060", True), ("0/4FFFFFF", False), ("1/0", True)], ids=["last", "gap", "beyond"]
)
def test_a_recovery_that_ended_early_is_no_recovery(position: str, complete: bool) -> None:
    class Server:
        def query(self, statement: str) -> str:
            return position

    seen = {"archives": [{"last": "000000010000000000000005"}]}
    if complete:
        recovery.require_last_segment(Server(), seen)
    else:
        with pytest.raises(backup.Fault, match="a segment between is missing"):
            recovery.require_last_segment(Server(), seen)


def test_the_reason_of_a_stopped_server_is_read_from_its_log() -> None:
    log = (
        "2026-11-21 11:56:38 UTC LOG:  last completed transaction was at log time 2026-11-21 11:50:00.1+00\n"
        "2026-11-21 11:56:38 UTC FATAL:  recovery ended before configured recovery target was reached\n"
    )
    assert recovery.failure_reason(log) == (
        "recovery ended before configured recovery target was reached; the last transaction that can be reached was at "
        "2026-11-21 11:50:00.1+00"
    )


@pytest.mark.parametrize("known", ["", "2026-11-21 10:15:00+00"], ids=["no heartbeat yet", "heartbeats"])
def test_the_newest_row_of_one_database_is_read_from_the_restored_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    class Restored:
        def wait(self, _: str) -> None:
            pass

        def query(self, statement: str, **_: str) -> str:
            if "to_regclass" in statement:
                return "f" if known else "t"
            return known if "heartbeat" in statement else "owner"

    @contextmanager
    def standing(_: Path) -> Iterator[Restored]:
        yield Restored()

    monkeypatch.setattr(recovery, "data_directory", lambda: tmp_path / "main")
    monkeypatch.setattr(recovery, "resolve_target", lambda _: ({"backups": []}, ["", ""], []))
    for name in ("restore_files", "copy_database"):
        monkeypatch.setattr(recovery, name, lambda *_: None)
    monkeypatch.setattr(recovery, "temporary_server", standing)
    monkeypatch.setattr(recovery.repository, "run_pgbackrest", lambda *_: "")
    monkeypatch.setattr(recovery.repository, "psql", lambda _, **__: "1")  # the server that runs knows nothing of it
    assert recovery.restore_database(SimpleNamespace(name="app", target="name:whole"))["restored_to"] == known


def test_a_moment_of_another_version_is_refused_before_anything_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the rollback of an upgrade the bucket holds backups of both versions."""
    data = tmp_path / "17/main"
    data.mkdir(parents=True)

    def fetch(folder: Path, *_: Any) -> None:
        folder.mkdir()
        (folder / "PG_VERSION").write_text("18\n")

    monkeypatch.setattr(recovery, "data_directory", lambda: data)
    monkeypatch.setattr(recovery, "resolve_target", lambda _: ({"backups": []}, ["", ""], []))
    monkeypatch.setattr(recovery, "restore_files", fetch)
    monkeypatch.setattr(recovery.repository, "is_running", lambda: False)
    wanted = SimpleNamespace(target="latest", timeline="", repository=None, repository_time="", replace=False)
    with pytest.raises(recovery.Fault, match="in a backup of PostgreSQL 18, and this host runs 17"):
        recovery.restore(wanted)
    assert [path.name for path in data.parent.iterdir()] == ["main"]


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results, in which every run of an hour ago went well."""
    monkeypatch.setattr(backup, "REPORT_DIRECTORY", tmp_path)
    monkeypatch.setattr(backup, "is_standby", lambda: False)
    for command in cli.RECORDED:
        backup.record_result(command, int(time.time()) - 3600)
    return tmp_path


def metric(reports: Path, command: str) -> str:
    name = f'slipway_postgresql_backup_last_result{{command="{command}"}} '
    (line,) = (line for line in (reports / "metrics.prom").read_text().splitlines() if line.startswith(name))
    return line.removeprefix(name)


@pytest.mark.parametrize("command", ["full", "diff", "incr", "verify", "drill"])
@pytest.mark.parametrize(
    ("error", "message"),
    [(backup.Fault("the volume is full"), "the volume is full"), (KeyError("size"), "crashed (KeyError: 'size')")],
    ids=["fault", "crash"],
)
def test_a_failed_run_replaces_the_result_of_the_last(
    reports: Path, monkeypatch: pytest.MonkeyPatch, command: str, error: Exception, message: str
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "execute", fail)
    began = int(time.time())
    assert metric(reports, command) == "1" and cli.main([command]) == 1
    found = backup.results()[command]
    assert not found["ok"] and found["began"] >= began and found["good"] and message in found["fault"]
    assert metric(reports, command) == "0"


def test_a_successful_run_records_its_start(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "execute", lambda _: {"drill_rpo_seconds": 4})
    began = int(time.time())
    assert cli.main(["drill"]) == 0
    found = backup.results()["drill"]
    assert found["ok"] and began <= found["began"] <= found["at"] == found["good"] and found["drill_rpo_seconds"] == 4
    assert "running" not in found and metric(reports, "drill") == "1"


def test_a_run_that_was_killed_is_recorded_by_its_unit(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_RESULT", "oom-kill")
    monkeypatch.setenv("EXIT_CODE", "killed")
    backup.record_start("drill", 1795255127)
    assert cli.main(["record-end", "drill"]) == 0
    found = backup.results()["drill"]
    assert (found["ok"], found["began"]) == (False, 1795255127)
    assert "ended without a result (oom-kill killed)" in found["fault"] == found["report"]["fault"]
    assert metric(reports, "drill") == "0" and metric(reports, "full") == "1"


def test_the_unit_calls_what_records_a_killed_run() -> None:
    unit = (ROLE / "templates/etc/systemd/system/slipway-postgresql-backup@.service.j2").read_text()
    run, end = (
        re.findall(rf"^{name}=\{{\{{ __postgresql_backup_library_dir }}}}/postgresql-backup (.*)$", unit, re.M)
        for name in ("ExecStart", "ExecStopPost")
    )
    assert (run, end) == (["%i"], ["record-end %i"])
    assert [cli.parser().parse_args(["record-end", command]).of for command in cli.RECORDED] == list(cli.RECORDED)


@pytest.mark.parametrize("result", ["success", "exit-code"])
def test_the_unit_keeps_what_a_run_recorded_itself(reports: Path, monkeypatch: pytest.MonkeyPatch, result: str) -> None:
    if result != "success":
        backup.record_result("drill", 1795255127, "it is damaged")
    before = backup.results()
    monkeypatch.setenv("SERVICE_RESULT", result)
    assert cli.main(["record-end", "drill"]) == 0
    assert backup.results() == before


def test_a_standby_leaves_the_results_alone(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "is_standby", lambda: True)
    before = backup.results()
    assert cli.main(["verify"]) == 0 and backup.results() == before


def test_a_first_run_in_progress_has_no_result_yet(reports: Path) -> None:
    (reports / "results.json").unlink()
    backup.record_start("full", 1795255127)
    assert 'command="full"' not in (reports / "metrics.prom").read_text()
    seen, planned = {"states": {}, "faults": [], "backups": []}, dict.fromkeys(backup.RECORDED, (7 * DAY, ENDED))
    assert backup.findings(seen, backup.results(), ENDED, planned) == []
