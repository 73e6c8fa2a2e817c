#!/usr/bin/python
"""Ansible module: reconcile the buckets of an S3 store."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: s3_buckets
short_description: Reconcile the buckets of an S3 store
description:
  - Creates missing buckets, with object lock where declared, enables versioning, sets the default retention, one
    lifecycle rule and the policy of writers. Verifies everything afterwards.
  - Never deletes a bucket, an object, another lifecycle rule or another policy statement. Never weakens a lock unless
    the bucket is listed in O(weaken_confirm).
  - Uses S3 over verified TLS with Signature Version 4 and needs only Python. Works with Ceph and with Hetzner.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the changes without making them. An unreachable store counts as empty.
options:
  endpoint:
    type: str
    required: true
    description: URL of the store, such as V(https://s3.example.com).
  region:
    type: str
    default: default
    description: Region in the signature of requests.
  ca_certificate:
    type: str
    default: ""
    description: Certificate authority of the store, PEM; empty for the trust store of the host.
  addresses:
    type: list
    elements: str
    default: []
    description:
      - Addresses to connect to instead of those of the endpoint's name, the first that answers. The certificate must
        be valid for the name.
  keys:
    type: list
    elements: dict
    required: true
    description: Keys of the owners.
    suboptions:
      owner:
        type: str
        required: true
        description: Name of the owner in O(buckets[].owner).
      access_key:
        type: str
        required: true
        description: Access key.
      secret_key:
        type: str
        required: true
        description: Secret key.
  buckets:
    type: list
    elements: dict
    required: true
    description: The buckets.
    suboptions:
      name:
        type: str
        required: true
        description: Name of the bucket.
      owner:
        type: str
        required: true
        description: Owner of the bucket, one of O(keys[].owner).
      versioning:
        type: bool
        default: false
        description: Whether noncurrent versions are kept. A lock implies it; it is never disabled.
      lock_mode:
        type: str
        choices: ["", GOVERNANCE, COMPLIANCE]
        default: ""
        description: Mode of the object lock, which must be set at creation. V(COMPLIANCE) cannot be shortened.
      lock_days:
        type: int
        default: 0
        description: Days that a new version cannot be deleted.
      expire_noncurrent_days:
        type: int
        default: 0
        description:
          - Days after which noncurrent versions expire; 0 retains all. Must exceed O(buckets[].lock_days).
      abort_multipart_days:
        type: int
        default: 0
        description: Days after which incomplete multipart uploads are aborted; 0 retains them.
      writers:
        type: list
        elements: str
        default: []
        description:
          - Users of Ceph, or ARNs, that may put, get, list and abort, but neither delete versions nor touch locks.
      prefixes:
        type: dict
        default: {}
        description:
          - Writer to the list of prefixes that it may use; default is the whole bucket. A listing without a prefix
            shows all keys.
      readers:
        type: list
        elements: str
        default: []
        description: Users of Ceph, or ARNs, that may get and list.
  weaken_confirm:
    type: list
    elements: str
    default: []
    description: Names of buckets whose lock may be weakened.
  compare_only:
    type: bool
    default: false
    description: Whether only to return what differs. In contrast to check mode an unreachable store is an error.
"""

EXAMPLES = r"""
- name: Create the bucket of the backups
  slipway.platform.s3_buckets:
    endpoint: https://s3.example.com
    keys:
      - owner: backup
        access_key: "{{ object_storage_owner_access_key }}"
        secret_key: "{{ object_storage_owner_secret_key }}"
    buckets:
      - name: prod-backup
        owner: backup
        lock_mode: COMPLIANCE
        lock_days: 14
        expire_noncurrent_days: 45
        writers: [writer]
  no_log: true
"""

RETURN = r"""
changes:
  description: Changes that were made, or would be.
  returned: always
  type: list
undeclared:
  description: Undeclared buckets of the same owners, as owner/bucket.
  returned: always
  type: list
"""

import json
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Answer, Key, S3Error, Store
from ansible_collections.slipway.platform.plugins.module_utils.s3_buckets import (
    Bucket,
    BucketError,
    Found,
    Plan,
    lock_document,
    lock_from,
    plan,
    rules_from,
    undeclared,
    versioning_document,
)

OTHER_SECRET = "SignatureDoesNotMatch"
UNKNOWN_KEYS = ("InvalidAccessKeyId", OTHER_SECRET)


def _or_none(store: Store, path: str, query: str, absent: Sequence[str]) -> Answer | None:
    """A setting of a bucket, or None if the store answers with one of the codes in `absent`."""
    try:
        return store.request("GET", path, {query: ""})
    except S3Error as error:
        if error.code in absent:
            return None
        raise


def list_owned(store: Store) -> list[str]:
    """Names of the buckets of the key's owner."""
    root = store.request("GET", "/").xml()
    return [element.text or "" for element in root.findall("Buckets/Bucket/Name")]


def read(store: Store, bucket: Bucket, names: Sequence[str]) -> Found | None:
    path = f"/{bucket.name}"
    if bucket.name not in names:
        try:
            store.request("HEAD", path)
        except S3Error as error:
            if error.status == 404:
                return None
            if error.status != 403:
                raise
        return Found(owner="another user")
    versioning = store.request("GET", path, {"versioning": ""}).xml()
    lock = _or_none(store, path, "object-lock", ["ObjectLockConfigurationNotFoundError"])
    lifecycle = _or_none(store, path, "lifecycle", ["NoSuchLifecycleConfiguration"])
    policy = _or_none(store, path, "policy", ["NoSuchBucketPolicy"])
    rules, foreign = rules_from(lifecycle.xml()) if lifecycle else ((), ())
    return Found(
        owner=bucket.owner,
        versioning=versioning.findtext("Status") or "",
        lock=lock_from(lock.xml()) if lock else None,
        rules=rules,
        foreign_rules=foreign,
        policy=json.loads(policy.body) if policy else None,
    )


def apply(store: Store, bucket: Bucket, planned: Plan) -> None:
    path = f"/{bucket.name}"
    if planned.create:
        store.request("PUT", path, headers={"x-amz-bucket-object-lock-enabled": "true"} if bucket.lock else None)
    if planned.versioning:
        store.request("PUT", path, {"versioning": ""}, versioning_document().encode())
    if planned.lock:
        store.request("PUT", path, {"object-lock": ""}, lock_document(planned.lock).encode())
    if planned.lifecycle:
        store.request("PUT", path, {"lifecycle": ""}, planned.lifecycle.encode())
    if planned.policy:
        store.request("PUT", path, {"policy": ""}, planned.policy.encode())


def options() -> dict[str, Any]:
    text = {"type": "str", "required": True}
    number = {"type": "int", "default": 0}
    return {
        "endpoint": text,
        "region": {"type": "str", "default": "default"},
        "ca_certificate": {"type": "str", "default": ""},
        "addresses": {"type": "list", "elements": "str", "default": []},
        "keys": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "no_log": False,
            "options": {
                "owner": text,
                "access_key": {**text, "no_log": True},
                "secret_key": {**text, "no_log": True},
            },
        },
        "buckets": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": text,
                "owner": text,
                "versioning": {"type": "bool", "default": False},
                "lock_mode": {"type": "str", "choices": ["", "GOVERNANCE", "COMPLIANCE"], "default": ""},
                "lock_days": number,
                "expire_noncurrent_days": number,
                "abort_multipart_days": number,
                "writers": {"type": "list", "elements": "str", "default": []},
                "prefixes": {"type": "dict", "default": {}},
                "readers": {"type": "list", "elements": "str", "default": []},
            },
        },
        "weaken_confirm": {"type": "list", "elements": "str", "default": []},
        "compare_only": {"type": "bool", "default": False},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=options(), supports_check_mode=True)
    given = module.params
    try:
        wanted = [Bucket.from_options(entry) for entry in given["buckets"]]
        stores = {
            entry["owner"]: Store(
                given["endpoint"],
                Key(entry["access_key"], entry["secret_key"]),
                region=given["region"],
                ca_certificate=given["ca_certificate"],
                addresses=given["addresses"],
            )
            for entry in given["keys"]
        }
        if missing := sorted({bucket.owner for bucket in wanted} - set(stores)):
            raise BucketError(f"owner {', '.join(missing)}: no key is given. Declare that user with its keys")
        changes, undeclared_names = reconcile(
            module.check_mode, wanted, stores, given["weaken_confirm"], given["compare_only"]
        )
    except (S3Error, BucketError) as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=bool(changes) and not given["compare_only"], changes=changes, undeclared=undeclared_names)


def reconcile(
    check_mode: bool,
    wanted: Sequence[Bucket],
    stores: dict[str, Store],
    confirm: Sequence[str],
    compare_only: bool = False,
) -> tuple[list[str], list[str]]:
    """(changes, undeclared buckets). All buckets are planned before the first change."""
    owned, unreadable = {}, {}
    for owner, store in stores.items():
        try:
            owned[owner] = list_owned(store)
        except S3Error as error:
            # In check mode the store, the owner or its keys may not exist yet.
            if not check_mode or (error.status != 0 and error.code not in UNKNOWN_KEYS):
                raise
            unreadable[owner] = error
    plans = [
        (bucket, plan(bucket, read(stores[bucket.owner], bucket, owned[bucket.owner]), confirm))
        for bucket in wanted
        if bucket.owner in owned
    ]
    if faults := [fault for _, planned in plans for fault in planned.faults]:
        raise BucketError("; ".join(faults))
    changes = [change for _, planned in plans for change in planned.changes]
    for bucket in wanted:
        if bucket.owner in unreadable:
            exists = unreadable[bucket.owner].code == OTHER_SECRET
            later = f"compare the bucket {bucket.name} after the new keys of {bucket.owner} are set"
            changes += [later] if exists else plan(bucket, None).changes
    if not check_mode and not compare_only:
        for bucket, planned in plans:
            if planned.changes:
                apply(stores[bucket.owner], bucket, planned)
                verify(stores[bucket.owner], bucket)
    return changes, undeclared(owned, wanted)


def verify(store: Store, bucket: Bucket) -> None:
    """Read the bucket back and compare it with the declaration."""
    rest = plan(bucket, read(store, bucket, [bucket.name]))
    if rest.changes or rest.faults:
        raise BucketError(
            f"bucket {bucket.name}: changes were not stored: {'; '.join(rest.changes + rest.faults)}. Run again"
        )


if __name__ == "__main__":
    main()
