"""Buckets: the planned changes, and the documents written to and read from the store."""

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
    policy_statements,
    rules_from,
    undeclared,
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
    policy={"Version": "2012-10-17", "Statement": policy_statements(WANTED)},
)


def test_a_lock_implies_versioning() -> None:
    assert WANTED.versioning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lock_days": 0}, "Set both or neither"),
        ({"lock_mode": ""}, "Set both or neither"),
        ({"expire_noncurrent_days": 7}, "locked for 7 days"),
        ({"lock_mode": "", "lock_days": 0}, "Enable versioning"),
    ],
)
def test_invalid_declarations_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BucketError, match=message):
        Bucket.from_options(OPTIONS | change)


def test_no_change_without_drift() -> None:
    made = plan(WANTED, AS_WANTED)
    assert (made.changes, made.faults) == ([], [])


def test_a_missing_bucket_is_created_with_all_settings() -> None:
    made = plan(WANTED, None)
    assert made.create and made.lock == Lock("GOVERNANCE", 7) and made.lifecycle and made.policy
    assert not made.versioning, "the lock enables it"
    assert made.changes[0] == "create bucket backup with object lock"
    plain = plan(Bucket("plain", "owner"), None)
    assert plain.changes == ["create bucket plain"]


def test_undeclared_settings_are_unchanged() -> None:
    made = plan(Bucket("backup", "owner"), AS_WANTED)
    assert (made.changes, made.faults) == ([], [])


def test_a_bucket_of_another_owner_is_a_fault() -> None:
    made = plan(WANTED, replace(AS_WANTED, owner="mallory"))
    assert made.changes == [] and "its owner is mallory" in made.faults[0]


def test_a_lock_is_not_added_to_an_existing_bucket() -> None:
    made = plan(WANTED, replace(AS_WANTED, lock=None))
    assert "without object lock" in made.faults[0]


@pytest.mark.parametrize(
    ("actual", "weaker"),
    [
        (Lock("GOVERNANCE", 1), False),
        (Lock(), False),
        (Lock("GOVERNANCE", 8), True),
        (Lock("COMPLIANCE", 7), True),
        (Lock("COMPLIANCE", 1), True),
    ],
)
def test_a_lock_is_weakened_only_if_confirmed(actual: Lock, weaker: bool) -> None:
    found = replace(AS_WANTED, lock=actual)
    made = plan(WANTED, found)
    assert bool(made.faults) == weaker
    assert (made.lock is None) == weaker
    assert plan(WANTED, found, ["backup"]).lock == Lock("GOVERNANCE", 7)


def test_versioning_is_enabled_again() -> None:
    made = plan(replace(WANTED, lock=None), replace(AS_WANTED, versioning="Suspended"))
    assert made.versioning and made.changes == ["enable versioning of bucket backup"]


def test_other_rules_and_statements_are_preserved() -> None:
    rule = "<Rule><ID>theirs</ID><Status>Enabled</Status></Rule>"
    statement = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    found = replace(AS_WANTED, rules=(), foreign_rules=(rule,), policy={"Statement": [statement]})
    made = plan(WANTED, found)
    ours, foreign = rules_from(_plain(made.lifecycle))
    assert len(ours) == 1 and ["theirs" in entry for entry in foreign] == [True]
    kept = json.loads(made.policy)["Statement"]
    assert statement in kept and len(kept) == 4


def test_a_policy_in_another_notation_is_the_same() -> None:
    statements = policy_statements(WANTED)
    for statement in statements:
        statement["Action"] = list(reversed(statement["Action"]))
        statement["Resource"] = statement["Resource"][0]
        statement["Principal"] = {"AWS": statement["Principal"]["AWS"][0]}
    made = plan(WANTED, replace(AS_WANTED, policy={"Statement": list(reversed(statements))}))
    assert made.changes == []


def test_another_writer_changes_the_policy() -> None:
    made = plan(replace(WANTED, writers=("arn:aws:iam:::user/p1:KEY", "writer")), AS_WANTED)
    principals = json.loads(made.policy)["Statement"][0]["Principal"]["AWS"]
    assert principals == ["arn:aws:iam:::user/p1:KEY", "arn:aws:iam:::user/writer"]


def test_a_writer_can_neither_delete_versions_nor_touch_locks() -> None:
    allowed = {
        action for entry in policy_statements(WANTED) if entry["Effect"] == "Allow" for action in entry["Action"]
    }
    assert "s3:PutObject" in allowed
    assert not allowed & {
        "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutObjectRetention", "s3:PutBucketPolicy",
        "s3:PutLifecycleConfiguration", "s3:PutBucketVersioning", "s3:DeleteBucket", "s3:*",
    }  # fmt: skip


def test_a_limited_writer_uses_its_prefixes_alone_and_a_reader_writes_nothing() -> None:
    wanted = Bucket.from_options(
        OPTIONS
        | {"writers": ["writer", "arn:aws:iam:::user/p1:KEY"], "readers": ["reader"]}
        | {"prefixes": {"arn:aws:iam:::user/p1:KEY": ["etcd/", "manifests/etcd/"]}}
    )
    statements = {entry["Sid"]: entry for entry in policy_statements(wanted)}
    assert set(statements) == {
        "SlipwayList", "SlipwayObjects", "SlipwayKeep", "SlipwayListReaders", "SlipwayObjectsReaders",
        *(f"Slipway{kind}arnawsiamuserp1KEY" for kind in ("List", "Objects", "Keep")),
    }  # fmt: skip
    limited = statements["SlipwayObjectsarnawsiamuserp1KEY"]
    assert limited["Resource"] == ["arn:aws:s3:::backup/etcd/*", "arn:aws:s3:::backup/manifests/etcd/*"]
    assert limited["Principal"] == {"AWS": ["arn:aws:iam:::user/p1:KEY"]}
    condition = statements["SlipwayListarnawsiamuserp1KEY"]["Condition"]
    assert condition == {"StringLikeIfExists": {"s3:prefix": ["etcd/*", "manifests/etcd/*"]}}
    assert statements["SlipwayObjects"]["Principal"] == {"AWS": ["arn:aws:iam:::user/writer"]}
    assert not [
        action for action in statements["SlipwayObjectsReaders"]["Action"] if "Put" in action or "Delete" in action
    ]
    found = replace(AS_WANTED, policy={"Statement": list(statements.values())})
    assert plan(wanted, found).changes == []
    assert plan(WANTED, found).changes == ["grant in bucket backup write access to writer"], (
        "former writers lose theirs"
    )


def test_a_prefix_of_no_writer_is_rejected() -> None:
    with pytest.raises(BucketError, match="prefixes names nobody, which writers does not"):
        Bucket.from_options(OPTIONS | {"prefixes": {"nobody": ["etcd/"]}})


def _plain(text: str) -> ET.Element:
    return Answer(200, {}, text.encode()).xml()


def test_documents_are_parsed_as_written() -> None:
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
    """Test double of a store, with the errors of a real one."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.discards: set[str] = set()
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
        elif method == "PUT" and setting not in self.discards:
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


def reconcile(store: Memory, *, check: bool = False, compare_only: bool = False) -> tuple[list[str], list[str]]:
    return module.reconcile(check, [WANTED], {"owner": store}, [], compare_only)  # type: ignore[dict-item]


def test_a_second_run_changes_nothing() -> None:
    store = Memory()
    planned, _ = reconcile(store, check=True)
    assert store.buckets == {}
    done, _ = reconcile(store)
    assert done == planned and len(done) == 4
    assert reconcile(store) == ([], [])


def test_an_unreachable_store_is_empty_in_check_mode_only() -> None:
    store = Memory()
    for error in (S3Error("does not answer"), S3Error("no such key", 403, "InvalidAccessKeyId")):
        store.down = error
        assert reconcile(store, check=True)[0][0] == "create bucket backup with object lock"
        with pytest.raises(S3Error):
            reconcile(store)
    store.down = S3Error("wrong signature", 403, "SignatureDoesNotMatch")
    assert reconcile(store, check=True)[0] == ["compare the bucket backup after the new keys of owner are set"]
    store.down = S3Error("busy", 503, "SlowDown")
    with pytest.raises(S3Error):
        reconcile(store, check=True)


def test_a_comparison_changes_nothing_and_needs_the_store() -> None:
    store = Memory()
    planned, _ = reconcile(store, compare_only=True)
    assert len(planned) == 4 and store.buckets == {}
    store.down = S3Error("does not answer")
    with pytest.raises(S3Error):
        reconcile(store, compare_only=True)


def test_discarded_changes_are_an_error() -> None:
    store = Memory()
    store.discards = {"lifecycle"}
    with pytest.raises(BucketError, match="changes were not stored"):
        reconcile(store)
