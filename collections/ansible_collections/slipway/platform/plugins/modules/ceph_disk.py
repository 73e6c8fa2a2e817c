"""Ansible module: classify the disks of a host that are to become OSDs, and wipe confirmed ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_disk
short_description: Classify the disks that are to become OSDs
description:
  - Reads each device and returns whether it is empty, an OSD of the cluster, or refused, with the reasons.
  - Unreadable or unknown contents count as data. A device that is in use, has the wrong size or belongs to the system
    is refused whatever is confirmed.
  - Writes only with O(wipe), only to devices whose volume is listed in O(wipe_confirm), and only if no device of
    this host is refused.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Classifies, and reports which devices would be wiped.
options:
  devices:
    type: list
    elements: dict
    required: true
    description: The devices.
    options:
      path:
        type: str
        required: true
        description: Its link in /dev/disk/by-id.
      size_gb:
        type: int
        default: 0
        description: Size of the volume in GB; 0 accepts any.
  fsid:
    type: str
    required: true
    description: The cluster's own UUID.
  known_osds:
    type: dict
    description: The OSDs of the running cluster, UUID to id. Omit while the cluster is not reachable.
  wipe_confirm:
    type: list
    elements: str
    default: []
    description: Ids of the volumes whose contents may be destroyed. An OSD of the running cluster is never wiped.
  wipe:
    type: bool
    default: false
    description: Wipe the devices with verdict wipe.
"""

EXAMPLES = r"""
- name: Classify the disks
  slipway.platform.ceph_disk:
    devices:
      - path: /dev/disk/by-id/scsi-0HC_Volume_103
        size_gb: 40
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
  register: disks
"""

RETURN = r"""
disks:
  description: For each device its path, volume, device, verdict (empty, osd, wipe, refused), osd_id, osd_uuid, faults,
    and whether it holds an unfinished OSD.
  returned: always
  type: list
  elements: dict
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import classify
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_read import DiskError, read_disk, wipe
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

UNFINISHED_SECONDS = 30
"""Timeout for an OSD that is being created: the managers complete it after an interrupted run."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "size_gb": {"type": "int", "default": 0},
                },
            },
            "fsid": {"type": "str", "required": True},
            "known_osds": {"type": "dict"},
            "wipe_confirm": {"type": "list", "elements": "str", "default": []},
            "wipe": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params

    def classified() -> list[dict[str, object]]:
        return classify(
            [read_disk(device["path"], device["size_gb"]) for device in given["devices"]],
            fsid=given["fsid"],
            known_osds=given["known_osds"],
            wipe_confirm=given["wipe_confirm"],
        )

    try:
        disks = wait_until(
            "Disks",
            classified,
            lambda disks: [f"{disk['path']} is unfinished" for disk in disks if disk["unfinished"]],
            timeout_seconds=UNFINISHED_SECONDS,
            interval_seconds=1,
        )
    except NotMet as error:
        disks = error.value
    if not given["wipe"]:
        module.exit_json(changed=False, disks=disks)
    refused = [fault for disk in disks for fault in disk["faults"]]  # type: ignore[attr-defined]
    if refused:
        module.fail_json(msg="\n".join(refused), disks=disks)
    to_wipe = [str(disk["path"]) for disk in disks if disk["verdict"] == "wipe"]
    if to_wipe and not module.check_mode:
        try:
            for path in to_wipe:
                wipe(path)
        except (OSError, DiskError) as error:
            module.fail_json(msg=f"Wiping failed: {error}", disks=disks)
        disks = classified()
        not_empty = [str(disk["path"]) for disk in disks if disk["path"] in to_wipe and disk["verdict"] != "empty"]
        if not_empty:
            module.fail_json(msg=f"{', '.join(not_empty)}: not empty after wiping.", disks=disks)
    module.exit_json(changed=bool(to_wipe), disks=disks)


if __name__ == "__main__":
    main()
