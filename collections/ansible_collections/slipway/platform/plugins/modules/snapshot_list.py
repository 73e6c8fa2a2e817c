#!/usr/bin/python
"""Ansible module: list the snapshots in a bucket."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: snapshot_list
short_description: List the snapshots in a bucket
description:
  - Reads the manifests and the objects of the bucket, and reports the newest snapshot of each expected series, what is
    due and missing, and manifests that disagree with their objects.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads only.
options:
  bucket:
    type: dict
    required: true
    description: The bucket.
    suboptions:
      endpoint: {type: str, required: true, description: URL of the store.}
      region: {type: str, required: true, description: Region in the signature of requests.}
      name: {type: str, required: true, description: Name of the bucket.}
      ca_certificate: {type: str, required: true, description: Authority of the store; empty for the trust store.}
      addresses:
        type: list
        elements: str
        default: []
        description: Addresses to connect to instead of those of the endpoint's name, the first that answers.
      access_key: {type: str, required: true, description: Access key that may list and get.}
      secret_key: {type: str, required: true, description: Secret key that belongs to it.}
  environment:
    type: str
    required: true
    description: Name of the environment, whose snapshots can be restored.
  expected:
    type: list
    elements: dict
    required: true
    description: Series of snapshots that have to exist.
    suboptions:
      part: {type: str, required: true, description: Part of the platform.}
      host: {type: str, default: "", description: Host that makes them; empty for any.}
      prefix: {type: str, default: "", description: Begin of their keys; empty for all of the part.}
"""

EXAMPLES = r"""
- name: List the snapshots
  slipway.platform.snapshot_list:
    bucket:
      endpoint: https://s3.example.com
      region: default
      name: prod-backup
      ca_certificate: ""
      access_key: "{{ object_storage_reader_access_key }}"
      secret_key: "{{ object_storage_reader_secret_key }}"
    environment: prod
    expected: [{part: etcd, host: prod-rke2-server-1}]
  register: snapshots
"""

RETURN = r"""
table:
  description: The listing as lines of a table.
  returned: always
  type: list
report:
  description: The listing as data, with its start time and its findings.
  returned: always
  type: dict
recovery:
  description: >-
    What a restore of the whole site starts from. The newest good snapshot of each series (C(points)), the series
    without one (C(missing)), and when the bucket was last written to (C(written_at)).
  returned: always
  type: dict
"""

from datetime import UTC, datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import snapshot_list
from ansible_collections.slipway.platform.plugins.module_utils.s3 import S3Error
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import Bucket, SnapshotError


def main() -> None:
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "bucket": {
                "type": "dict",
                "required": True,
                "options": {
                    **dict.fromkeys(("endpoint", "region", "name", "ca_certificate"), text),
                    "addresses": {"type": "list", "elements": "str", "default": []},
                    "access_key": {**text, "no_log": True},
                    "secret_key": {**text, "no_log": True},
                },
            },
            "environment": text,
            "expected": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "part": text,
                    "host": {"type": "str", "default": ""},
                    "prefix": {"type": "str", "default": ""},
                },
            },
        },
        supports_check_mode=True,
    )
    began, given = datetime.now(UTC), module.params
    try:
        bucket = Bucket.from_options(given["bucket"], given["bucket"])
        objects = {entry.key: entry for entry in bucket.list_objects("")}
        manifests, unreadable = bucket.manifests("")
    except (S3Error, SnapshotError) as error:
        module.fail_json(msg=f"{error}.")
    described = list(manifests.values())
    expected = [snapshot_list.Expected(**entry) for entry in given["expected"]]
    rows = [snapshot_list.row(entry, described, objects, began) for entry in expected]
    found = snapshot_list.findings(rows, described, unreadable, objects)
    module.exit_json(
        changed=False,
        table=snapshot_list.table(rows),
        report=snapshot_list.report(rows, found, began),
        recovery=snapshot_list.recovery(expected, described, objects, given["environment"]),
    )


if __name__ == "__main__":
    main()
