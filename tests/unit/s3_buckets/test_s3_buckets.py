"""Buckets: what is planned for what is there, and the documents that go to the store and come back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Answer, S3Error
from ansible_collections.slipway.platform.plugins.module_utils.s3_buckets import (
    Bucket,
    BucketError,
    Found,
    Lock,
    lifecycle_document,
    lifecycle_rule,
    lock_document,
    lock_from,
    plan,
    rules_from,
    undeclared,
    writer_statements,
)
from ansible_collections.slipway.platform.plugins.modules import s3_buckets as module

OPTIONS: dict[str, Any] = {
    "name": "backup",
    "owner": "owner",
    "versioning": False,
    "lock_mode": "GOVERNANCE",
    "lock_days": 7,
    "expire_noncurrent_days": 14,
    "abort_multipart_days": 3,
    "writers": ["writer"],
}
WANTED = Bucket.from_options(OPTIONS)
AS_WANTED = Found(
    owner="owner",
    versioning="Enabled",
    lock=Lock("GOVERNANCE", 7),
    rules=(lifecycle_rule(WANTED) or {},),
    policy={"Version": "2012-10-17", "Statement": writer_statements("backup", ["writer"])},
)


def test_a_lock_brings_versioning() -> None:
    assert WANTED.versioning


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lock_days": 0}, "go together"),
        ({"lock_mode": ""}, "go together"),
        ({"expire_noncurrent_days": 7}, "locked for 7 days"),
        ({"lock_mode": "", "lock_days": 0}, "turn it on"),
    ],
)
def test_declarations_that_cannot_be_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BucketError, match=sentence):
        Bucket.from_options(OPTIONS | change)


def test_nothing_is_planned_for_what_is_as_wanted() -> None:
    made = plan(WANTED, AS_WANTED)
    assert (made.changes, made.faults) == ([], [])


def test_a_missing_bucket_is_made_with_everything() -> None:
    made = plan(WANTED, None)
    assert made.create and made.lock == Lock("GOVERNANCE", 7) and made.lifecycle and made.policy
    assert not made.versioning, "the lock turns it on"
    assert made.changes[0] == "create bucket backup with object lock"
    plain = plan(Bucket("plain", "owner"), None)
    assert plain.changes == ["create bucket plain"]


def test_what_is_not_wanted_is_not_touched() -> None:
    made = plan(Bucket("backup", "owner"), AS_WANTED)
    assert (made.changes, made.faults) == ([], [])


def test_somebody_elses_bucket_is_a_fault() -> None:
    made = plan(WANTED, replace(AS_WANTED, owner="mallory"))
    assert made.changes == [] and "belongs to mallory" in made.faults[0]


def test_a_lock_is_not_added_to_a_bucket_made_without() -> None:
    made = plan(WANTED, replace(AS_WANTED, lock=None))
    assert "without object lock" in made.faults[0]


@pytest.mark.parametrize(
    ("there", "weaker"),
    [
        (Lock("GOVERNANCE", 1), False),
        (Lock(), False),
        (Lock("GOVERNANCE", 8), True),
        (Lock("COMPLIANCE", 7), True),
        (Lock("COMPLIANCE", 1), True),
    ],
)
def test_a_lock_becomes_weaker_only_when_named(there: Lock, weaker: bool) -> None:
    found = replace(AS_WANTED, lock=there)
    made = plan(WANTED, found)
    assert bool(made.faults) == weaker
    assert (made.lock is None) == weaker
    assert plan(WANTED, found, ["backup"]).lock == Lock("GOVERNANCE", 7)


def test_versioning_is_turned_on_again() -> None:
    made = plan(replace(WANTED, lock=None), replace(AS_WANTED, versioning="Suspended"))
    assert made.versioning and made.changes == ["turn versioning of bucket backup on"]


def test_foreign_rules_and_statements_stay() -> None:
    rule = "<Rule><ID>theirs</ID><Status>Enabled</Status></Rule>"
    statement = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    found = replace(AS_WANTED, rules=(), foreign_rules=(rule,), policy={"Statement": [statement]})
    made = plan(WANTED, found)
    ours, foreign = rules_from(_plain(made.lifecycle))
    assert len(ours) == 1 and ["theirs" in entry for entry in foreign] == [True]
    kept = json.loads(made.policy)["Statement"]
    assert statement in kept and len(kept) == 4


def test_a_policy_in_another_way_of_writing_is_the_same() -> None:
    statements = writer_statements("backup", ["writer"])
    for statement in statements:
        statement["Action"] = list(reversed(statement["Action"]))
        statement["Resource"] = statement["Resource"][0]
        statement["Principal"] = {"AWS": statement["Principal"]["AWS"][0]}
    made = plan(WANTED, replace(AS_WANTED, policy={"Statement": list(reversed(statements))}))
    assert made.changes == []


def test_a_writer_more_changes_the_policy() -> None:
    made = plan(replace(WANTED, writers=("arn:aws:iam:::user/p1:KEY", "writer")), AS_WANTED)
    who = json.loads(made.policy)["Statement"][0]["Principal"]["AWS"]
    assert who == ["arn:aws:iam:::user/p1:KEY", "arn:aws:iam:::user/writer"]


def test_a_writer_can_neither_delete_versions_nor_touch_locks() -> None:
    allowed = {
        action for entry in writer_statements("b", ["w"]) if entry["Effect"] == "Allow" for action in entry["Action"]
    }
    assert "s3:PutObject" in allowed
    assert not allowed & {
        "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutObjectRetention", "s3:PutBucketPolicy",
        "s3:PutLifecycleConfiguration", "s3:PutBucketVersioning", "s3:DeleteBucket", "s3:*",
    }  # fmt: skip


def _plain(text: str) -> ET.Element:
    return Answer(200, {}, text.encode()).xml()


def test_documents_are_read_as_they_were_written() -> None:
    rule = lifecycle_rule(WANTED)
    assert rule is not None
    ours, foreign = rules_from(_plain(lifecycle_document(rule, [])))
    assert (list(ours), foreign) == ([rule], ())
    assert lock_from(_plain(lock_document(Lock("COMPLIANCE", 30)))) == Lock("COMPLIANCE", 30)
    assert lock_from(_plain("<ObjectLockConfiguration/>")) == Lock()
    years = "<C><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Years>2</Years></DefaultRetention></Rule></C>"
    assert lock_from(_plain(years)) == Lock("GOVERNANCE", 730)


def test_undeclared_buckets_are_named() -> None:
    assert undeclared({"owner": ["backup", "old"], "other": []}, [WANTED]) == ["owner/old"]


class Memory:
    """A store that keeps what it is given; errors as a real one writes them."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.forgets: set[str] = set()
        self.down: S3Error | None = None

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"", headers: Any = None
    ) -> Answer:
        if self.down:
            raise self.down
        name, setting = path.strip("/"), next(iter(query or {}), "")
        if not name:
            names = "".join(f"<Bucket><Name>{bucket}</Name></Bucket>" for bucket in self.buckets)
            return Answer(200, {}, f"<R><Buckets>{names}</Buckets></R>".encode())
        if method == "PUT" and not setting:
            self.buckets[name] = {}
            if headers:
                self.buckets[name] = {
                    "object-lock": b"<O><ObjectLockEnabled>Enabled</ObjectLockEnabled></O>",
                    "versioning": b"<V><Status>Enabled</Status></V>",
                }
        elif method == "PUT" and setting not in self.forgets:
            self.buckets[name][setting] = body
        elif method == "HEAD" and name not in self.buckets:
            raise S3Error("no", 404)
        elif method == "GET":
            absent = {
                "object-lock": "ObjectLockConfigurationNotFoundError",
                "lifecycle": "NoSuchLifecycleConfiguration",
                "policy": "NoSuchBucketPolicy",
            }
            if setting in absent and setting not in self.buckets[name]:
                raise S3Error("no", 404, absent[setting])
            return Answer(200, {}, self.buckets[name].get(setting, b"<V/>"))
        return Answer(200, {}, b"")


def keep(store: Memory, *, check: bool = False) -> tuple[list[str], list[str]]:
    return module.keep(check, [WANTED], {"owner": store}, [])  # type: ignore[dict-item]


def test_once_made_nothing_is_done_again() -> None:
    store = Memory()
    announced, _ = keep(store, check=True)
    assert store.buckets == {}
    done, _ = keep(store)
    assert done == announced and len(done) == 4
    assert keep(store) == ([], [])


def test_a_store_that_is_not_there_yet_is_empty_in_check_mode_only() -> None:
    store = Memory()
    for error in (S3Error("does not answer"), S3Error("no such key", 403, "InvalidAccessKeyId")):
        store.down = error
        assert keep(store, check=True)[0][0] == "create bucket backup with object lock"
        with pytest.raises(S3Error):
            keep(store)
    store.down = S3Error("wrong signature", 403, "SignatureDoesNotMatch")
    assert keep(store, check=True)[0] == ["look at the bucket backup when owner has its new keys"]
    store.down = S3Error("busy", 503, "SlowDown")
    with pytest.raises(S3Error):
        keep(store, check=True)


def test_a_store_that_forgets_is_told() -> None:
    store = Memory()
    store.forgets = {"lifecycle"}
    with pytest.raises(BucketError, match="did not keep"):
        keep(store)
