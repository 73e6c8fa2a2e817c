"""The listing of a bucket, the role's filters, the escrow's document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyrage
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter import age, snapshots, verify
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_list import (
    Expected,
    findings,
    report,
    row,
    table,
)
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_manifest import Manifest, format_time

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


def manifest(key: str, hours: int, host: str = "server-1", **more: Any) -> Manifest:
    created = format_time((NOW - timedelta(hours=hours)).timestamp())
    values = {"max_age_seconds": 9 * 3600, "software": {}, **more}
    return Manifest(
        part=key.partition("/")[0], environment="prod", object=key, size_bytes=2048, sha256="", created=created,
        host=host, address="", **values,
    )  # fmt: skip


def objects(*manifests: Manifest) -> dict[str, Entry]:
    return {entry.object: Entry(entry.object, entry.size_bytes, "", "") for entry in manifests}


NEW, OLD = manifest("etcd/new", 2), manifest("etcd/old", 8)


def test_the_newest_snapshot_of_a_series_is_shown() -> None:
    found = row(Expected("etcd", "server-1"), [OLD, NEW], objects(OLD, NEW), NOW)
    assert (found.newest, found.age_seconds, found.manifest, found.missing) == ("etcd/new", 7200, "ok", "")


def test_a_snapshot_of_another_host_does_not_count() -> None:
    assert row(Expected("etcd", "server-2"), [NEW], objects(NEW), NOW).missing == "there is no snapshot"
    assert row(Expected("etcd"), [NEW], objects(NEW), NOW).missing == ""
    assert row(Expected("etcd", prefix="etcd/other-"), [NEW], objects(NEW), NOW).missing == "there is no snapshot"


def test_the_limit_of_age_is_that_of_the_schedule() -> None:
    late = manifest("etcd/late", 10)
    assert row(Expected("etcd"), [late], objects(late), NOW).missing == "the newest is 10 h old, and 9 h are allowed"
    unknown = replace(late, max_age_seconds=0)
    assert row(Expected("etcd"), [unknown], objects(unknown), NOW).missing == ""


def test_the_newest_good_snapshot_decides_what_is_missing() -> None:
    late = manifest("etcd/late", 10)
    found = row(Expected("etcd"), [NEW, late], objects(late), NOW)
    assert (found.newest, found.manifest) == ("etcd/new", "its object does not exist")
    assert found.missing == "the newest is 10 h old, and 9 h are allowed"
    assert "no snapshot whose object agrees" in row(Expected("etcd"), [NEW], {}, NOW).missing
    assert findings([found], [NEW, late], {"etcd/x": "its manifest is no JSON"}, objects(late)) == [
        "etcd server-1: the newest is 10 h old, and 9 h are allowed",
        "etcd/new: its object does not exist",
        "etcd/x: its manifest is no JSON",
    ]


def test_parts_that_nothing_saves_are_in_the_table_and_in_the_report() -> None:
    rows = [row(Expected("etcd"), [NEW], objects(NEW), NOW)]
    lines = table(rows)
    assert lines[0].split() == ["part", "newest", "age", "size", "host", "manifest", "missing"]
    assert lines[1].split() == ["etcd", "etcd/new", "2", "h", "2.0", "kB", "server-1", "ok", "-"]
    assert [line.split()[0] for line in lines if "not backed up" in line] == [
        "postgresql", "ceph", "rancher", "volumes", "config",
    ]  # fmt: skip
    document = report(rows, ["x"], NOW)
    assert document["began"] == "2027-01-15T08:00:00Z"
    assert document["findings"] == ["x"]
    assert document["not_backed_up"] == ["postgresql", "ceph", "rancher", "volumes", "config"]


# filters

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())
KEYS = {part: {"access_key": "a", "secret_key": "b"} for part in ("etcd", "config", "ceph")}


def faults(**changes: Any) -> list[str]:
    given: dict[str, Any] = {
        "parts": ["etcd", "config", "ceph"],
        "host": "h",
        "keys": KEYS,
        "public_key": RECIPIENT,
        "etcd_schedule": "0 */6 * * *",
        "config_paths": ["/etc/x"],
        "fsid": "f",
        "gateway": {},
        "buckets": [],
    }
    return snapshots.faults(**given | changes)


def test_valid_inputs_have_no_fault() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"keys": {}, "parts": ["etcd"]}, "s3_snapshot_keys has no access_key and secret_key for etcd"),
        ({"public_key": "ssh-ed25519 x"}, "which is no public key of age"),
        ({"etcd_schedule": "often"}, "no cron expression of five fields. Correct rke2_etcd_snapshot_schedule"),
        ({"config_paths": ["etc/x"]}, "'etc/x', which is not absolute"),
        ({"config_paths": []}, "s3_snapshot_config_paths is empty"),
        ({"fsid": ""}, "s3_snapshot_ceph_fsid is empty"),
        ({"buckets": [{"name": "b"}]}, "s3_snapshot_ceph_gateway is empty"),
    ],
)
def test_invalid_inputs_are_faults(changes: dict[str, Any], fault: str) -> None:
    assert [fault in text for text in faults(**changes)] == [True]


def test_a_part_has_its_keys_and_the_schedule_of_its_source() -> None:
    options = {"etcd": {"snapshot_dir": "/s", "source_cron": "0 */6 * * *"}, "config": {"paths": ["/etc"]}}
    found = snapshots.parts_of(["etcd"], options, KEYS, {"etcd": "hourly"}, 30)
    assert found == {
        "etcd": {
            "source_timers": [], "source_calendars": ["*-*-* 0/6:0:00"], "calendar": "hourly", "drill_days": 30,
            "access_key": "a", "secret_key": "b", "snapshot_dir": "/s",
        }
    }  # fmt: skip


def test_each_part_has_a_timer_and_other_parts_have_none() -> None:
    units = {unit["name"]: unit for unit in snapshots.timers({"config": "daily"}, ["config"])}
    assert "OnCalendar=daily\n" in units["config"]["files"][0]["content"]
    assert [file["state"] for file in units["etcd"]["files"]] == ["absent", "absent"]


def test_a_writer_may_use_its_parts_and_their_manifests() -> None:
    assert snapshots.prefixes({"etcd": "one", "config": "one", "ceph": "two"}) == {
        "one": ["etcd/", "manifests/etcd/", "config/", "manifests/config/"],
        "two": ["ceph/", "manifests/ceph/"],
    }
    with pytest.raises(AnsibleFilterError, match="the part"):
        snapshots.prefixes({"../x": "one"})


def test_every_series_of_an_environment_is_expected() -> None:
    found = snapshots.expected(["s1"], ["db"], ["c1"], [{"name": "canary"}], ["kubernetes/volume"])
    assert found == [
        {"part": "etcd", "host": "s1"},
        {"part": "config", "host": "s1"},
        {"part": "postgresql"},
        {"part": "ceph", "prefix": "ceph/monitor-"},
        {"part": "ceph", "prefix": "ceph/bucket-canary-"},
        {"part": "ceph", "prefix": "ceph/image-kubernetes-volume-"},
    ]
    assert snapshots.expected(["s1"], [], [], [], []) == found[:2]


def test_findings_of_the_hosts_are_those_of_verify_and_a_missing_result_is_one() -> None:
    hostvars = {
        "a": {"__verify_snapshot_status": {"rc": 0, "stdout": "config: late\n"}},
        "b": {"__verify_snapshot_status": {"rc": 127, "stderr": "no such file"}},
        "c": {"__verify_snapshot_status": {"unreachable": True}},
        "d": {"__verify_snapshot_status": {"rc": 0, "stdout": ""}},
    }
    found = verify.snapshot_findings(hostvars, ["a", "b", "c", "d", "e"])
    assert found[0] == "snapshots of a: config: late"
    assert "b: a check has no result (no such file)" in found[1]
    assert found[2] == "c cannot be reached by SSH"
    assert "e: a check has no result (it was not part of this run)" in found[3]
    assert len(found) == 4


# the escrow

ENTRIES = [
    {"name": "rke2_token", "reason": "etcd"},
    {"name": "passwords", "reason": "databases"},
    {"name": "second_key", "reason": "second bucket", "optional": True},
]


def test_the_escrow_holds_each_secret_with_its_reason_and_only_the_identity_decrypts_it() -> None:
    text = age.escrow_document(ENTRIES, ["secret", {"app": "p"}, ""], "prod")
    assert yaml.safe_load(text) == {"rke2_token": "secret", "passwords": {"app": "p"}}
    assert "# etcd\nrke2_token: secret\n" in text
    identity = pyrage.x25519.Identity.generate()
    encrypted = age.encrypt(text, str(identity.to_public()))
    assert encrypted.startswith("-----BEGIN AGE ENCRYPTED FILE-----") and "secret" not in encrypted
    assert pyrage.decrypt(encrypted.encode(), [identity]).decode() == text
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(encrypted.encode(), [pyrage.x25519.Identity.generate()])


def test_a_missing_secret_and_a_wrong_public_key_are_rejected() -> None:
    with pytest.raises(AnsibleFilterError, match="rke2_token, passwords: no value in the inventory"):
        age.escrow_document(ENTRIES, ["", {}, ""], "prod")
    with pytest.raises(AnsibleFilterError, match="which is no public key of age"):
        age.encrypt("x", "age1wrong")
