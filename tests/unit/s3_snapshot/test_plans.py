"""Decisions of the snapshots: manifests, ages by schedule, etcd's objects, series, findings, metrics."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry
from ansible_collections.slipway.platform.plugins.module_utils.schedules import (
    ScheduleError,
    age_limit,
    calendar_from_cron,
    longest_interval,
)
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import (
    VERSION,
    Manifest,
    ManifestError,
    disagreement,
    fingerprint,
    manifest_key,
    object_key,
)
from slipway_snapshot import etcd, postgresql, series, state

REPOSITORY = Path(__file__).resolve().parents[3]
NOW = 1_800_000_000
KEY = f"etcd/etcd-snapshot-server-1-{NOW - 7200}.zip"
MANIFEST = Manifest(
    part="etcd",
    environment="prod",
    object=KEY,
    size_bytes=10,
    sha256="ab" * 32,
    created="2027-01-15T06:00:00Z",
    host="server-1",
    address="10.40.1.21",
    software={"rke2": "v1.36.3+rke2r1"},
    requires=("rke2_token",),
    token_fingerprint="0123456789abcdef",
    etag="tag",
)


def entry(key: str, size: int = 10, etag: str = "tag") -> Entry:
    return Entry(key, size, etag, "2027-01-15T06:00:00.000Z")


def local(name: str, size: int = 10, age: int = 7200) -> dict[str, etcd.LocalFile]:
    return {name: etcd.LocalFile(Path("/snapshots") / name, size, NOW - age)}


# manifests


def test_a_manifest_survives_json_and_names_its_schema_and_producer() -> None:
    document = json.loads(MANIFEST.to_json())
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert document["schema"] == 1
    assert document["producer"] == f"slipway s3_snapshot {VERSION}"
    assert "token_fingerprint" not in json.loads(replace(MANIFEST, token_fingerprint="").to_json())


def test_the_version_is_that_of_the_platform() -> None:
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_unknown_fields_of_a_manifest_are_ignored() -> None:
    text = json.dumps(json.loads(MANIFEST.to_json()) | {"later": 1})
    assert Manifest.from_json(text) == MANIFEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has schema None"),
        ('{"schema": 2}', "has schema 2, and this version reads 1"),
        ('{"schema": 1, "part": "etcd"}', "lacks address, created"),
    ],
)
def test_other_documents_are_no_manifests(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(text)


def test_a_manifest_is_an_object_outside_of_its_part() -> None:
    assert manifest_key("etcd/a.zip") == "manifests/etcd/a.zip.json"
    assert object_key(manifest_key("etcd/a.zip")) == "etcd/a.zip"


@pytest.mark.parametrize("token", ["secret", "K10ab::server:secret", "K10ab::server:secret\n"])
def test_the_fingerprint_is_the_same_for_each_form_of_the_token(token: str) -> None:
    assert fingerprint(token) == hashlib.sha256(b"secret").hexdigest()[:16]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (entry(KEY), ""),
        (None, "its object does not exist"),
        (entry(KEY, 9), "its object has 9 bytes, and its manifest has 10"),
        (entry(KEY, 10, "other"), "its object was replaced after it was verified"),
    ],
)
def test_a_manifest_and_its_object_are_compared(found: Entry | None, reason: str) -> None:
    assert disagreement(MANIFEST, found) == reason


# schedules

CRON = [
    ("0 */6 * * *", "*-*-* 0/6:0:00"),
    ("*/15 2-5 * * *", "*-*-* 2..5:0/15:00"),
    ("30 3 * * 1-5", "Mon..Fri *-*-* 3:30:00"),
    ("0 0 1,15 * *", "*-*-1,15 0:0:00"),
    ("@daily", "*-*-* 0:0:00"),
    ("@weekly", "Sun *-*-* 0:0:00"),
]


@pytest.mark.parametrize(("cron", "calendar"), CRON)
def test_cron_becomes_a_calendar(cron: str, calendar: str) -> None:
    assert calendar_from_cron(cron) == calendar


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("hourly", "no cron expression of five fields"),
        ("0 0 1 * 1", "days of the month and of the week"),
        ("0 0 * * MON", "the day of the week MON"),
    ],
)
def test_cron_that_cannot_be_read_is_an_error(cron: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        calendar_from_cron(cron)


def elapses(*hours: int) -> str:
    """As systemd-analyze prints them."""
    lines = [f"  Next elapse: Fri 2027-01-01 {hours[0]:02}:00:00 UTC"]
    lines += [f"       Iter. #{number}: Fri 2027-01-01 {hour:02}:00:00 UTC" for number, hour in enumerate(hours[1:], 2)]
    return "\n".join(lines)


def test_the_longest_interval_counts() -> None:
    assert longest_interval("x", lambda _: elapses(0, 6, 8)) == 6 * 3600
    with pytest.raises(ScheduleError, match="does not repeat"):
        longest_interval("x", lambda _: elapses(0))


def test_the_age_limit_adds_the_schedule_of_the_program_that_makes_the_snapshots() -> None:
    schedules = {"own": elapses(0, 1, 2), "rare": elapses(0, 12), "frequent": elapses(0, 6)}
    assert age_limit("own", [], schedules.__getitem__) == 3 * 3600
    assert age_limit("own", ["rare", "frequent"], schedules.__getitem__) == (6 + 1 + 2) * 3600


# etcd


def test_names_of_other_nodes_and_metadata_are_not_own() -> None:
    assert etcd.snapshot_time(KEY, "server-1") == NOW - 7200
    assert etcd.snapshot_time("etcd/etcd-snapshot-server-11-1800000000", "server-1") is None
    keys = [KEY, f"etcd/.metadata/etcd-snapshot-server-1-{NOW}", "etcd/etcd-snapshot-server-2-1800000000"]
    assert list(etcd.own_objects([entry(key) for key in keys], "server-1")) == [KEY]


NAME = KEY.removeprefix("etcd/")


@pytest.mark.parametrize(
    ("files", "objects", "manifests", "verified", "fault"),
    [
        (local(NAME), {KEY: entry(KEY)}, {KEY: MANIFEST}, [], ""),
        (local(NAME), {KEY: entry(KEY)}, {}, [KEY], ""),
        ({}, {KEY: entry(KEY)}, {}, [KEY], ""),
        (local(NAME), {KEY: entry(KEY, 0)}, {}, [], "the object has 0 bytes"),
        (local(NAME), {KEY: entry(KEY, 4)}, {}, [], "the object has 4 bytes, and the local snapshot 10"),
        (local(NAME), {KEY: entry(KEY, 10, "x")}, {KEY: MANIFEST}, [], "its object was replaced"),
        (local(NAME), {}, {}, [], "exists on this host and was not uploaded"),
        (local(NAME, age=60), {}, {}, [], ""),
        ({}, {}, {KEY: MANIFEST}, [], "its object was deleted"),
    ],
    ids=["same", "new", "no local file", "empty", "truncated", "replaced", "missing", "uploading", "deleted"],
)
def test_snapshots_of_etcd_are_compared_with_the_bucket(
    files: dict[str, etcd.LocalFile],
    objects: dict[str, Entry],
    manifests: dict[str, Manifest],
    verified: list[str],
    fault: str,
) -> None:
    planned = etcd.plan(files, objects, manifests, "server-1", NOW)
    assert [found.key for found in planned.verify] == verified
    assert [fault in text for text in planned.faults] == ([True] if fault else [])


def test_what_retention_deleted_is_pruned_and_older_local_snapshots_are_no_fault() -> None:
    newer = f"etcd/etcd-snapshot-server-1-{NOW - 3600}"
    planned = etcd.plan(local(NAME), {newer: entry(newer)}, {KEY: MANIFEST}, "server-1", NOW)
    assert (planned.prune, planned.faults) == ([KEY], [])


def test_retention_counts_the_snapshots_of_each_name() -> None:
    on_demand, newer = f"etcd/before-upgrade-server-1-{NOW - 90000}", f"etcd/etcd-snapshot-server-1-{NOW - 3600}"
    objects = {key: entry(key) for key in (on_demand, newer)}
    manifests = {key: replace(MANIFEST, object=key) for key in (on_demand, newer, KEY)}
    planned = etcd.plan({}, objects, manifests, "server-1", NOW)
    assert (planned.prune, planned.faults) == ([KEY], [])


# series and pgBackRest


def test_the_newest_of_a_series_are_retained() -> None:
    keys = [series.key_of("config/", "host", ".tar", NOW + number * 86400) for number in range(3)]
    others = ["config/host-2-20270115T080000Z.tar", "config/host-notes"]
    assert series.expired([*keys, *others], "config/", "host", 2) == [keys[0]]
    assert series.expired(keys, "config/", "host", 3) == []


def test_backups_with_errors_get_no_manifest() -> None:
    info = [{"backup": [{"label": "a", "error": False}, {"label": "b", "error": True}]}, {}]
    assert [backup["label"] for backup in postgresql.backups_of(info)] == ["a"]
    assert postgresql.key_of("postgresql/", "a") == "postgresql/backup/main/a/backup.manifest"


# state

CONFIGURATION: dict[str, Any] = {
    "bucket": {"endpoint": "https://s3"},
    "parts": {"config": {"access_key": "a", "secret_key": "b", "drill_days": 0}},
}
GOOD = {
    "bucket-config": {"ok": True, "digest": state.digest(CONFIGURATION, "config"), "began": NOW, "at": NOW},
    "config": {
        "ok": True, "began": NOW - 100, "at": NOW - 90, "good": NOW - 90, "fault": "",
        "newest": {"object": "config/a", "created": "2027-01-15T07:58:20Z", "size_bytes": 7},
    },
}  # fmt: skip


def found(known: dict[str, Any], configuration: dict[str, Any] = CONFIGURATION, since: float | None = NOW) -> list[str]:
    return state.findings(configuration, known, NOW, lambda part: since, lambda options: 3600)


def changed(**values: Any) -> dict[str, Any]:
    return GOOD | {"config": GOOD["config"] | values}


def test_a_good_state_has_no_findings() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("known", "fault"),
    [
        ({"config": GOOD["config"]}, "the bucket is not verified: it was not used with the present bucket and keys"),
        (GOOD | {"bucket-config": {"ok": False, "fault": "wrong key"}}, "the bucket is not verified: wrong key"),
        (GOOD | {"bucket-config": GOOD["bucket-config"] | {"digest": "other"}}, "not used with the present bucket"),
        (changed(ok=False, fault="no network"), "the run of 2027-01-15T07:58:20Z failed: no network"),
        (changed(good=NOW - 7200), "last succeeded 2 hours ago on this host"),
        (changed(newest=GOOD["config"]["newest"] | {"created": "2027-01-15T00:00:00Z"}), "is 8 hours old, and its"),
    ],
)
def test_what_is_wrong_is_a_finding(known: dict[str, Any], fault: str) -> None:
    assert [fault in text for text in found(known)] == [True]


def test_a_part_that_never_ran_is_a_finding_once_it_is_due() -> None:
    verified = {"bucket-config": GOOD["bucket-config"]}
    assert found(verified) == []
    assert ["has never succeeded" in text for text in found(verified, since=NOW - 7200)] == [True]
    assert ["there is no timer" in text for text in found(verified, since=None)] == [True]
    empty = changed(newest=None)
    assert ["holds no good snapshot" in text for text in found(empty, since=NOW - 7200)] == [True]


def test_a_drill_is_expected_only_where_it_is_enabled() -> None:
    options = CONFIGURATION["parts"]["config"] | {"drill_days": 30}
    configuration = CONFIGURATION | {"parts": {"config": options}}
    assert found(GOOD, configuration, since=NOW - 30 * 86400) == []
    assert ["was never drilled" in text for text in found(GOOD, configuration, since=NOW - 31 * 86400)] == [True]
    drill = {"ok": True, "began": NOW, "at": NOW, "good": NOW, "fault": ""}
    assert found(GOOD | {"drill-config": drill}, configuration) == []
    late = GOOD | {"drill-config": drill | {"good": NOW - 40 * 86400}}
    assert ["the last drill is 40 days old" in text for text in found(late, configuration)] == [True]
    failed = GOOD | {"drill-config": drill | {"ok": False, "fault": "another key count"}}
    assert ["failed: another key count" in text for text in found(failed, configuration)] == [True]


def test_a_result_is_written_with_its_start_and_a_killed_run_is_a_failure(tmp_path: Path) -> None:
    state.record_start("config", NOW, tmp_path)
    state.record_result(
        "config",
        NOW,
        folder=tmp_path,
        newest={"object": "config/a", "created": "2027-01-15T08:00:00Z", "size_bytes": 7},
    )
    assert state.results(tmp_path)["config"]["began"] == NOW
    assert 'slipway_snapshot_last_result{job="config"} 1' in (tmp_path / "metrics.prom").read_text()
    assert 'slipway_snapshot_newest_bytes{job="config"} 7' in (tmp_path / "metrics.prom").read_text()
    state.record_start("config", NOW + 60, tmp_path)
    state.record_end("config", {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}, tmp_path)
    result = state.results(tmp_path)["config"]
    assert (result["ok"], result["began"]) == (False, NOW + 60)
    assert "ended without a result (signal killed KILL)" in result["fault"]
    assert result["newest"]["object"] == "config/a", "the last good snapshot is still there"
    state.record_end("config", {"SERVICE_RESULT": "success"}, tmp_path)
    assert 'slipway_snapshot_last_result{job="config"} 0' in (tmp_path / "metrics.prom").read_text()


def test_damaged_results_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    assert state.results(tmp_path) == {}
