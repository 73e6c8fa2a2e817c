#!/usr/bin/python
"""Keep the S3 users of a Ceph cluster as they are declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ceph_s3_users
short_description: Keep the S3 users of a Ceph cluster as they are declared
description:
  - Makes users with the keys that are given, and sets their quota, number of buckets and suspension.
  - Runs on a host of the cluster with a running daemon. Keys go to the cluster by standard input, where no other
    process can read them, as metadata of the user.
  - Never deletes a user. A key that is not declared stays, unless it is named as retired.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says what it would do.
options:
  fsid:
    type: str
    required: true
    description: The cluster's UUID.
  users:
    type: list
    elements: dict
    required: true
    description: The users.
    suboptions:
      name:
        type: str
        required: true
        description: Name of the user.
      display_name:
        type: str
        description: Name for people; the user's name when left out.
      access_key:
        type: str
        required: true
        description: Access key.
      secret_key:
        type: str
        required: true
        description: Its secret.
      max_buckets:
        type: int
        default: -1
        description: Buckets that it may make; -1 for none at all, 0 for any number.
      quota_gb:
        type: int
        default: 0
        description: Most that it may hold, in GB; 0 for no limit.
      quota_objects:
        type: int
        default: 0
        description: Most objects that it may hold; 0 for no limit.
      suspended:
        type: bool
        default: false
        description: Whether it is turned away.
      retired_access_keys:
        type: list
        elements: str
        default: []
        description: Access keys that are taken from it.
"""

EXAMPLES = r"""
- name: Keep the user of the backups
  slipway.platform.ceph_s3_users:
    fsid: 899f40b4-a686-4ead-b19f-4ab5cb0001db
    users:
      - name: backup
        access_key: "{{ object_storage_access_key }}"
        secret_key: "{{ object_storage_secret_key }}"
        quota_gb: 500
  no_log: true
"""

RETURN = r"""
changes:
  description: What was done, or in check mode would be; without secrets.
  returned: always
  type: list
undeclared:
  description: Users and keys that are not declared, in words.
  returned: always
  type: list
"""

import json
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_s3_users import (
    User,
    UserError,
    check,
    plan,
    undeclared,
)

ROOT_POOL = ".rgw.root"
"""Made by the first gateway, and by radosgw-admin itself when it is asked anything before."""

# radosgw-admin answers one question a start; this asks several at the same time within one container process.
READER = """
import json, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

def admin(*words):
    done = subprocess.run(["radosgw-admin", *sys.argv[1:], *words], capture_output=True, text=True, close_fds=False)
    if done.returncode == 2:
        return None
    if done.returncode:
        sys.exit(done.stderr.strip() or f"radosgw-admin {words[0]} ended with {done.returncode}")
    return json.loads(done.stdout)

wanted = json.load(sys.stdin)
with ThreadPoolExecutor(8) as pool:
    names = pool.submit(admin, "metadata", "list", "user")
    entries = list(pool.map(lambda name: admin("metadata", "get", f"user:{name}"), wanted))
users = {name: entry for name, entry in zip(wanted, entries) if entry}
print(json.dumps({"names": names.result() or [], "users": users}))
"""


def read(cluster: Cluster, wanted: Sequence[User]) -> dict[str, Any]:
    """All users' names, and the whole metadata of those that are declared."""
    if ROOT_POOL not in cluster.json(["osd", "pool", "ls"]):
        return {"names": [], "users": {}}
    answer = cluster.tool(["python3", "-c", READER], input=json.dumps([user.name for user in wanted]))
    return dict(json.loads(answer))


def write(cluster: Cluster, name: str, entry: dict[str, Any]) -> None:
    cluster.tool(["radosgw-admin", "metadata", "put", f"user:{name}"], input=json.dumps(entry))


def entry_of(found: dict[str, Any] | None, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Metadata as radosgw-admin takes it: with the version that was read, so that nobody else's change is undone."""
    return {**(found or {"key": f"user:{name}", "ver": {"tag": "", "ver": 0}, "mtime": "0.000000"}), "data": data}


def keep(cluster: Cluster, wanted: Sequence[User], *, check_mode: bool) -> tuple[list[str], list[str]]:
    """(what was done or would be, what nobody declared)."""
    seen = read(cluster, wanted)
    changes = []
    for user in wanted:
        found = seen["users"].get(user.name)
        made = plan(user, found["data"] if found else None)
        changes += made.changes
        if made.changes and not check_mode:
            write(cluster, user.name, entry_of(found, user.name, made.data))
    data = {name: entry["data"] for name, entry in seen["users"].items() if entry}
    if changes and not check_mode:
        prove(cluster, wanted)
    return changes, undeclared(seen["names"], data, wanted)


def prove(cluster: Cluster, wanted: Sequence[User]) -> None:
    """What was written is what is read back."""
    seen = read(cluster, wanted)
    for user in wanted:
        entry = seen["users"].get(user.name)
        if rest := plan(user, entry["data"] if entry else None).changes:
            raise UserError(f"Ceph did not keep what it was given: {'; '.join(rest)}")


def options() -> dict[str, Any]:
    text = {"type": "str", "required": True}
    number = {"type": "int", "default": 0}
    return {
        "fsid": text,
        "users": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": text,
                "display_name": {"type": "str"},
                "access_key": {**text, "no_log": True},
                "secret_key": {**text, "no_log": True},
                "max_buckets": {"type": "int", "default": -1},
                "quota_gb": number,
                "quota_objects": number,
                "suspended": {"type": "bool", "default": False},
                "retired_access_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            },
        },
    }


def main() -> None:
    module = AnsibleModule(argument_spec=options(), supports_check_mode=True)
    try:
        wanted = [User.from_options(entry) for entry in module.params["users"]]
        check(wanted)
        cluster = Cluster(module.run_command, module.params["fsid"])
        changes, left = keep(cluster, wanted, check_mode=module.check_mode)
    except (CephError, UserError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changes), changes=changes, undeclared=left)


if __name__ == "__main__":
    main()
