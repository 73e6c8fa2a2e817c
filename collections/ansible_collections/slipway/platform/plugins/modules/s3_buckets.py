#!/usr/bin/python
"""Keep buckets of an S3 store as they are declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: s3_buckets
short_description: Keep buckets of an S3 store as they are declared
description:
  - Makes buckets that are missing, with object lock where it is declared, turns versioning on, sets the default
    retention, one lifecycle rule and the policy of writers. Reads everything back afterwards.
  - Never deletes a bucket, an object, a foreign lifecycle rule or a foreign statement of a policy. Never weakens a lock
    unless the bucket is named in O(weaken_confirm).
  - Speaks S3 over verified TLS with Signature Version 4 and needs nothing but Python, for Ceph and for Hetzner alike.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says what it would do. A store that does not answer yet is taken for an empty one.
options:
  endpoint:
    type: str
    required: true
    description: Address of the store, such as V(https://s3.example.com).
  region:
    type: str
    default: default
    description: Region that requests are signed for.
  ca_certificate:
    type: str
    default: ""
    description: Authority of the store's certificate, PEM; empty for the authorities that this machine trusts.
  addresses:
    type: list
    elements: str
    default: []
    description:
      - Addresses to connect to in place of what the endpoint's name leads to, the first that answers. The certificate
        must be for the name.
  keys:
    type: list
    elements: dict
    required: true
    description: Keys of the owners.
    suboptions:
      owner:
        type: str
        required: true
        description: Name that O(buckets[].owner) uses.
      access_key:
        type: str
        required: true
        description: Access key.
      secret_key:
        type: str
        required: true
        description: Its secret.
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
        description: Whose key makes and keeps it.
      versioning:
        type: bool
        default: false
        description: Keeps old versions of objects. A lock brings it with it; it is never turned off.
      lock_mode:
        type: str
        choices: ["", GOVERNANCE, COMPLIANCE]
        default: ""
        description: Object lock, which has to be there when the bucket is made. Nobody can shorten V(COMPLIANCE).
      lock_days:
        type: int
        default: 0
        description: Days that a new version cannot be deleted.
      expire_noncurrent_days:
        type: int
        default: 0
        description:
          - Days after which a version that is not the newest goes; 0 keeps all. More than O(buckets[].lock_days).
      abort_multipart_days:
        type: int
        default: 0
        description: Days after which the parts of an unfinished upload go; 0 keeps them.
      writers:
        type: list
        elements: str
        default: []
        description:
          - Users of Ceph, or ARNs, that may put, get, list and abort, but neither delete versions nor touch locks.
  weaken_confirm:
    type: list
    elements: str
    default: []
    description: Names of buckets whose lock may become weaker.
"""

EXAMPLES = r"""
- name: Keep the bucket of the backups
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
  description: What was done, or in check mode would be.
  returned: always
  type: list
undeclared:
  description: Buckets of the same owners that are not declared, as owner/bucket.
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
    """A setting of a bucket, or None where the store says by one of these codes that there is none."""
    try:
        return store.request("GET", path, {query: ""})
    except S3Error as error:
        if error.code in absent:
            return None
        raise


def owned(store: Store) -> list[str]:
    """Names of the buckets that belong to the holder of the key."""
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
        return Found(owner="somebody else")
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


def apply(store: Store, bucket: Bucket, made: Plan) -> None:
    path = f"/{bucket.name}"
    if made.create:
        store.request("PUT", path, headers={"x-amz-bucket-object-lock-enabled": "true"} if bucket.lock else None)
    if made.versioning:
        store.request("PUT", path, {"versioning": ""}, versioning_document().encode())
    if made.lock:
        store.request("PUT", path, {"object-lock": ""}, lock_document(made.lock).encode())
    if made.lifecycle:
        store.request("PUT", path, {"lifecycle": ""}, made.lifecycle.encode())
    if made.policy:
        store.request("PUT", path, {"policy": ""}, made.policy.encode())


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
            },
        },
        "weaken_confirm": {"type": "list", "elements": "str", "default": []},
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
            raise BucketError(f"no key is given for the owner {', '.join(missing)}; declare that user with its keys")
        done, left = keep(module.check_mode, wanted, stores, given["weaken_confirm"])
    except (S3Error, BucketError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done), changes=done, undeclared=left)


def keep(
    check_mode: bool, wanted: Sequence[Bucket], stores: dict[str, Store], confirm: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(what was done or would be, buckets that nobody declared). All is planned before the first change."""
    held, locked_out = {}, {}
    for owner, store in stores.items():
        try:
            held[owner] = owned(store)
        except S3Error as error:
            # In check mode the store, the owner or its keys may be what would be made just before.
            if not check_mode or (error.status != 0 and error.code not in UNKNOWN_KEYS):
                raise
            locked_out[owner] = error
    plans = [
        (bucket, plan(bucket, read(stores[bucket.owner], bucket, held[bucket.owner]), confirm))
        for bucket in wanted
        if bucket.owner in held
    ]
    if faults := [fault for _, made in plans for fault in made.faults]:
        raise BucketError("; ".join(faults))
    done = [change for _, made in plans for change in made.changes]
    for bucket in wanted:
        if bucket.owner in locked_out:
            there = locked_out[bucket.owner].code == OTHER_SECRET
            later = f"look at the bucket {bucket.name} when {bucket.owner} has its new keys"
            done += [later] if there else plan(bucket, None).changes
    if not check_mode:
        for bucket, made in plans:
            if made.changes:
                apply(stores[bucket.owner], bucket, made)
                prove(stores[bucket.owner], bucket)
    return done, undeclared(held, wanted)


def prove(store: Store, bucket: Bucket) -> None:
    """What was put is what is read back."""
    rest = plan(bucket, read(store, bucket, [bucket.name]))
    if rest.changes or rest.faults:
        raise BucketError(f"the store did not keep what it was given: {'; '.join(rest.changes + rest.faults)}")


if __name__ == "__main__":
    main()
