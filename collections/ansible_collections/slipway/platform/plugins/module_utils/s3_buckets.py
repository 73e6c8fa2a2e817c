"""Changes that reconcile buckets with their declaration: pure decisions, and the documents of the S3 API."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.s3 import NAMESPACE

RULE = "slipway"
"""The id of our lifecycle rule; other rules stay unchanged."""
STATEMENT = "Slipway"
"""The start of the ids of our policy statements; other statements stay unchanged."""
STRENGTH = {"": 0, "GOVERNANCE": 1, "COMPLIANCE": 2}

LIST_ACTIONS = (
    "s3:GetBucketLocation",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketVersioning",
    "s3:GetLifecycleConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
)
OBJECT_ACTIONS = (
    "s3:AbortMultipartUpload",
    # Adds a delete marker and keeps every version; deleting a version is another action.
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:GetObjectRetention",
    "s3:GetObjectVersion",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)
READ_ACTIONS = ("s3:GetObject", "s3:GetObjectRetention", "s3:GetObjectVersion")
DENIED_ACTIONS = (
    "s3:BypassGovernanceRetention",
    "s3:DeleteObjectVersion",
    "s3:PutObjectLegalHold",
    "s3:PutObjectRetention",
)


class BucketError(Exception):
    """An invalid declaration, as one message."""


@dataclass(frozen=True)
class Lock:
    """Default retention of a bucket with object lock; without a mode, new versions are not locked by default."""

    mode: str = ""
    days: int = 0

    def weaker_than(self, other: Lock) -> bool:
        return STRENGTH[self.mode] < STRENGTH[other.mode] or self.days < other.days


@dataclass(frozen=True)
class Bucket:
    """A declared bucket."""

    name: str
    owner: str
    versioning: bool = False
    lock: Lock | None = None
    expire_noncurrent_days: int = 0
    abort_multipart_days: int = 0
    writers: tuple[str, ...] = ()
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Writer → the prefixes that it is limited to."""
    readers: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Bucket:
        """From the validated options of a module."""
        name, mode, days = options["name"], options["lock_mode"] or "", options["lock_days"]
        if bool(mode) != bool(days):
            raise BucketError(f"bucket {name}: only one of lock_mode and lock_days is set. Set both or neither")
        versioning = bool(options["versioning"] or mode)
        expire = options["expire_noncurrent_days"]
        if expire and not versioning:
            raise BucketError(f"bucket {name}: expire_noncurrent_days is set without versioning. Enable versioning")
        if expire and expire <= days:
            raise BucketError(
                f"bucket {name}: expire_noncurrent_days is {expire}, but versions are locked for {days} days. "
                f"Set it to more than {days}"
            )
        prefixes = options.get("prefixes") or {}
        if unknown := sorted(set(prefixes) - set(options["writers"] or ())):
            raise BucketError(
                f"bucket {name}: prefixes names {', '.join(unknown)}, which writers does not. Add it there"
            )
        return cls(
            name=name,
            owner=options["owner"],
            versioning=versioning,
            lock=Lock(mode, days) if mode else None,
            expire_noncurrent_days=expire,
            abort_multipart_days=options["abort_multipart_days"],
            writers=tuple(sorted(options["writers"] or ())),
            prefixes={writer: tuple(sorted(names)) for writer, names in prefixes.items()},
            readers=tuple(sorted(options.get("readers") or ())),
        )


@dataclass(frozen=True)
class Found:
    """The actual state of a bucket."""

    owner: str
    versioning: str = ""
    """Enabled, Suspended, or empty if it was never enabled."""
    lock: Lock | None = None
    rules: tuple[Mapping[str, Any], ...] = ()
    """Our lifecycle rules, each as `rule_from` reads it."""
    foreign_rules: tuple[str, ...] = ()
    """XML of all other lifecycle rules."""
    policy: Mapping[str, Any] | None = None


@dataclass
class Plan:
    """Changes of one bucket; empty if none is needed."""

    create: bool = False
    versioning: bool = False
    lock: Lock | None = None
    lifecycle: str = ""
    """The complete document to put."""
    policy: str = ""
    changes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def plan(wanted: Bucket, found: Found | None, weaken_confirm: Sequence[str] = ()) -> Plan:
    """Changes from the actual to the declared state. Locks are weakened only for confirmed buckets."""
    planned = Plan()
    name = wanted.name
    if found is None:
        planned.create = True
        planned.changes.append(f"create bucket {name}{' with object lock' if wanted.lock else ''}")
        # The store enables versioning for a bucket with object lock.
        found = Found(owner=wanted.owner, versioning="Enabled" if wanted.lock else "", lock=_fresh(wanted))
    elif found.owner != wanted.owner:
        planned.faults.append(
            f"bucket {name}: its owner is {found.owner}, declared is {wanted.owner}. Declare its owner, or another name"
        )
        return planned
    if wanted.versioning and found.versioning != "Enabled":
        planned.versioning = True
        planned.changes.append(f"enable versioning of bucket {name}")
    if wanted.lock is not None:
        _plan_lock(planned, wanted.lock, found, name, name in weaken_confirm)
    _plan_lifecycle(planned, wanted, found)
    _plan_policy(planned, wanted, found)
    return planned


def _fresh(wanted: Bucket) -> Lock | None:
    return Lock() if wanted.lock is not None else None


def _plan_lock(planned: Plan, wanted: Lock, found: Found, name: str, confirmed: bool) -> None:
    if found.lock is None:
        planned.faults.append(
            f"bucket {name}: created without object lock, which not every store can add later. "
            "Declare a new bucket with object lock, and let the old one expire"
        )
    elif found.lock != wanted:
        if wanted.weaker_than(found.lock) and not confirmed:
            planned.faults.append(
                f"bucket {name}: versions are locked for {found.lock.days} days ({found.lock.mode}), and "
                f"{wanted.days} days ({wanted.mode}) is weaker. Restore the old values, or list the bucket in "
                "weaken_confirm"
            )
            return
        planned.lock = wanted
        planned.changes.append(f"lock new versions in bucket {name} for {wanted.days} days ({wanted.mode})")


def _plan_lifecycle(planned: Plan, wanted: Bucket, found: Found) -> None:
    rule = lifecycle_rule(wanted)
    own = [entry for entry in found.rules if entry["id"] == RULE]
    if rule is None or own == [rule]:
        return
    planned.lifecycle = lifecycle_document(rule, found.foreign_rules)
    planned.changes.append(f"set the lifecycle of bucket {wanted.name}: {_lifecycle_summary(rule)}")


def _lifecycle_summary(rule: Mapping[str, Any]) -> str:
    parts = []
    if rule["noncurrent_days"]:
        parts.append(f"noncurrent versions expire after {rule['noncurrent_days']} days")
    if rule["abort_days"]:
        parts.append(f"multipart uploads are aborted after {rule['abort_days']} days")
    return ", ".join(parts)


def _plan_policy(planned: Plan, wanted: Bucket, found: Found) -> None:
    if not (wanted.writers or wanted.readers):
        return
    statements = policy_statements(wanted)
    present = list((found.policy or {}).get("Statement", []))
    own = [_normal(entry) for entry in present if _is_own(entry)]
    if sorted(own, key=_text) == sorted((_normal(entry) for entry in statements), key=_text):
        return
    others = [entry for entry in present if not _is_own(entry)]
    planned.policy = _text({"Version": "2012-10-17", "Statement": [*others, *statements]})
    granted = [f"write access to {', '.join(wanted.writers)}"] if wanted.writers else []
    granted += [f"read access to {', '.join(wanted.readers)}"] if wanted.readers else []
    planned.changes.append(f"grant in bucket {wanted.name} {' and '.join(granted)}")


def _is_own(statement: Mapping[str, Any]) -> bool:
    return str(statement.get("Sid", "")).startswith(STATEMENT)


def _text(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


def _normal(statement: Mapping[str, Any]) -> dict[str, Any]:
    """A normalized statement: stores may return a list of one as a string, and in another order."""

    def listed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: listed(inner) for key, inner in value.items()}
        return sorted(value) if isinstance(value, list) else [value]

    return {key: value if key in ("Sid", "Effect") else listed(value) for key, value in statement.items()}


def principal(writer: str) -> str:
    """The ARN of a user of Ceph; an ARN is returned unchanged."""
    return writer if writer.startswith("arn:") else f"arn:aws:iam:::user/{writer}"


def policy_statements(wanted: Bucket) -> list[dict[str, Any]]:
    """Allow writers to put, get, list and abort, and readers to get and list.

    Explicitly deny writers to delete versions and to change locks.
    """
    limited = [writer for writer in wanted.writers if writer in wanted.prefixes]
    statements = _writer_statements(wanted.name, [writer for writer in wanted.writers if writer not in limited])
    for writer in limited:
        statements += _writer_statements(wanted.name, [writer], wanted.prefixes[writer])
    if wanted.readers:
        bucket_arn = f"arn:aws:s3:::{wanted.name}"
        statements += [
            _statement("List", "Readers", wanted.readers, LIST_ACTIONS, [bucket_arn]),
            _statement("Objects", "Readers", wanted.readers, READ_ACTIONS, [f"{bucket_arn}/*"]),
        ]
    return statements


def _writer_statements(bucket: str, writers: Sequence[str], prefixes: Sequence[str] = ()) -> list[dict[str, Any]]:
    if not writers:
        return []
    bucket_arn, id = f"arn:aws:s3:::{bucket}", re.sub(r"[^A-Za-z0-9]", "", writers[0]) if prefixes else ""
    objects = [f"{bucket_arn}/{prefix}*" for prefix in prefixes] or [f"{bucket_arn}/*"]
    listing = _statement("List", id, writers, LIST_ACTIONS, [bucket_arn])
    if prefixes:
        # A request without a prefix has to pass: HEAD of a bucket, which clients send first, needs the same permission.
        listing["Condition"] = {"StringLikeIfExists": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}}
    return [
        listing,
        _statement("Objects", id, writers, OBJECT_ACTIONS, objects),
        _statement("Keep", id, writers, DENIED_ACTIONS, [f"{bucket_arn}/*"], effect="Deny"),
    ]


def _statement(
    kind: str, id: str, users: Sequence[str], actions: Sequence[str], resources: list[str], effect: str = "Allow"
) -> dict[str, Any]:
    return {
        "Sid": f"{STATEMENT}{kind}{id}",
        "Effect": effect,
        "Principal": {"AWS": [principal(user) for user in users]},
        "Action": list(actions),
        "Resource": resources,
    }


def lifecycle_rule(wanted: Bucket) -> dict[str, Any] | None:
    """Our lifecycle rule, or None if the bucket declares none."""
    if not (wanted.expire_noncurrent_days or wanted.abort_multipart_days):
        return None
    return {
        "id": RULE,
        "enabled": True,
        "noncurrent_days": wanted.expire_noncurrent_days,
        "abort_days": wanted.abort_multipart_days,
        "drop_markers": bool(wanted.expire_noncurrent_days),
    }


def lifecycle_document(rule: Mapping[str, Any], others: Iterable[str]) -> str:
    root = ET.Element("LifecycleConfiguration", xmlns=NAMESPACE)
    own = ET.SubElement(root, "Rule")
    ET.SubElement(own, "ID").text = rule["id"]
    ET.SubElement(own, "Status").text = "Enabled"
    ET.SubElement(ET.SubElement(own, "Filter"), "Prefix").text = ""
    if rule["drop_markers"]:
        ET.SubElement(ET.SubElement(own, "Expiration"), "ExpiredObjectDeleteMarker").text = "true"
    if rule["noncurrent_days"]:
        noncurrent = ET.SubElement(own, "NoncurrentVersionExpiration")
        ET.SubElement(noncurrent, "NoncurrentDays").text = str(rule["noncurrent_days"])
    if rule["abort_days"]:
        abort = ET.SubElement(own, "AbortIncompleteMultipartUpload")
        ET.SubElement(abort, "DaysAfterInitiation").text = str(rule["abort_days"])
    for text in others:
        root.append(ET.fromstring(text))
    return ET.tostring(root, encoding="unicode")


def rules_from(root: ET.Element) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """(our rules, XML of the others) of a lifecycle document without namespaces."""
    own, others = [], []
    for element in root.findall("Rule"):
        if element.findtext("ID") == RULE:
            own.append(rule_from(element))
        else:
            others.append(ET.tostring(element, encoding="unicode"))
    return tuple(own), tuple(others)


def rule_from(element: ET.Element) -> dict[str, Any]:
    return {
        "id": element.findtext("ID"),
        "enabled": element.findtext("Status") == "Enabled",
        "noncurrent_days": int(element.findtext("NoncurrentVersionExpiration/NoncurrentDays") or 0),
        "abort_days": int(element.findtext("AbortIncompleteMultipartUpload/DaysAfterInitiation") or 0),
        "drop_markers": (element.findtext("Expiration/ExpiredObjectDeleteMarker") or "").lower() == "true",
    }


def lock_from(root: ET.Element) -> Lock:
    retention = root.find("Rule/DefaultRetention")
    if retention is None:
        return Lock()
    days = int(retention.findtext("Days") or 0) or 365 * int(retention.findtext("Years") or 0)
    return Lock(retention.findtext("Mode") or "", days)


def lock_document(lock: Lock) -> str:
    root = ET.Element("ObjectLockConfiguration", xmlns=NAMESPACE)
    ET.SubElement(root, "ObjectLockEnabled").text = "Enabled"
    retention = ET.SubElement(ET.SubElement(root, "Rule"), "DefaultRetention")
    ET.SubElement(retention, "Mode").text = lock.mode
    ET.SubElement(retention, "Days").text = str(lock.days)
    return ET.tostring(root, encoding="unicode")


def versioning_document() -> str:
    root = ET.Element("VersioningConfiguration", xmlns=NAMESPACE)
    ET.SubElement(root, "Status").text = "Enabled"
    return ET.tostring(root, encoding="unicode")


def undeclared(present: Mapping[str, Iterable[str]], wanted: Iterable[Bucket]) -> list[str]:
    """Undeclared buckets of the declared owners, as `owner/bucket`."""
    names = {bucket.name for bucket in wanted}
    return sorted(f"{owner}/{name}" for owner, held in present.items() for name in held if name not in names)
