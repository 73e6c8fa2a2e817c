#!/usr/bin/python
"""Ansible module: reconcile the S3 users of a Ceph cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ceph_s3_users
short_description: Reconcile the S3 users of a Ceph cluster
description:
  - Creates users with the given keys, and sets their quota, maximum number of buckets and suspension.
  - Runs on a host of the cluster with a running daemon. Keys are passed as metadata of the user by standard input,
    which no other process can read.
  - Never deletes a user. An undeclared key stays unless it is listed in O(users[].retired_access_keys).
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports the changes without making them.
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
        description: Display name. Default is the user's name.
      access_key:
        type: str
        required: true
        description: Access key.
      secret_key:
        type: str
        required: true
        description: Secret key.
      max_buckets:
        type: int
        default: -1
        description: Buckets that the user may create; -1 for none, 0 for any number.
      quota_gb:
        type: int
        default: 0
        description: Quota in GB; 0 for no limit.
      quota_objects:
        type: int
        default: 0
        description: Quota in objects; 0 for no limit.
      suspended:
        type: bool
        default: false
        description: Whether the user is suspended.
      retired_access_keys:
        type: list
        elements: str
        default: []
        description: Access keys to remove.
"""

EXAMPLES = r"""
- name: Create the user of the backups
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
  description: Changes that were made, or would be; without secrets.
  returned: always
  type: list
undeclared:
  description: Undeclared users and keys, one message each.
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
    plan,
    undeclared,
    validate,
)

ROOT_POOL = ".rgw.root"
"""Created by the first gateway; radosgw-admin would create it too, so it is not run before."""

# radosgw-admin runs one command for each start; this runs several in parallel in one container process.
READER = """
import json, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

def admin(*words):
    command = ["radosgw-admin", *sys.argv[1:], *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", close_fds=False)
    if done.returncode == 2:
        return None
    if done.returncode:
        sys.exit(done.stderr.strip() or f"radosgw-admin {words[0]}: exit code {done.returncode}")
    return json.loads(done.stdout)

wanted = json.load(sys.stdin)
with ThreadPoolExecutor(8) as pool:
    names = pool.submit(admin, "metadata", "list", "user")
    entries = list(pool.map(lambda name: admin("metadata", "get", f"user:{name}"), wanted))
users = {name: entry for name, entry in zip(wanted, entries) if entry}
print(json.dumps({"names": names.result() or [], "users": users}))
"""


def read(cluster: Cluster, wanted: Sequence[User]) -> dict[str, Any]:
    """Names of all users, and the metadata of the declared ones."""
    if ROOT_POOL not in cluster.json(["osd", "pool", "ls"]):
        return {"names": [], "users": {}}
    answer = cluster.tool(["python3", "-c", READER], input=json.dumps([user.name for user in wanted]))
    return dict(json.loads(answer))


def write(cluster: Cluster, name: str, entry: dict[str, Any]) -> None:
    cluster.tool(["radosgw-admin", "metadata", "put", f"user:{name}"], input=json.dumps(entry))


def entry_of(found: dict[str, Any] | None, name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Metadata for radosgw-admin, with the version that was read, so that no concurrent change is overwritten."""
    return {**(found or {"key": f"user:{name}", "ver": {"tag": "", "ver": 0}, "mtime": "0.000000"}), "data": data}


def reconcile(cluster: Cluster, wanted: Sequence[User], *, check_mode: bool) -> tuple[list[str], list[str]]:
    """(changes, undeclared users and keys)."""
    current = read(cluster, wanted)
    changes = []
    for user in wanted:
        found = current["users"].get(user.name)
        planned = plan(user, found["data"] if found else None)
        changes += planned.changes
        if planned.changes and not check_mode:
            write(cluster, user.name, entry_of(found, user.name, planned.data))
    data = {name: entry["data"] for name, entry in current["users"].items() if entry}
    if changes and not check_mode:
        verify(cluster, wanted)
    return changes, undeclared(current["names"], data, wanted)


def verify(cluster: Cluster, wanted: Sequence[User]) -> None:
    """Read the users back and compare them with the declaration."""
    current = read(cluster, wanted)
    for user in wanted:
        entry = current["users"].get(user.name)
        if rest := plan(user, entry["data"] if entry else None).changes:
            raise UserError(f"S3 users: changes were not stored: {'; '.join(rest)}. Run again")


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
        validate(wanted)
        cluster = Cluster(module.run_command, module.params["fsid"])
        changes, undeclared_names = reconcile(cluster, wanted, check_mode=module.check_mode)
    except (CephError, UserError) as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=bool(changes), changes=changes, undeclared=undeclared_names)


if __name__ == "__main__":
    main()
