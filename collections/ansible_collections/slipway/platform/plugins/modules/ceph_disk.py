"""Ansible module: judge the disks of a host that are to become OSDs, and blank those that are named for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_disk
short_description: Judge the disks that are to become OSDs
description:
  - Reads each device and says whether it is blank, an OSD of the cluster already, or to be left alone, and why.
  - What cannot be read or is not known counts as data; a device in use, of the wrong size or of the system is refused
    whatever is confirmed.
  - Writes only with O(wipe), only to devices whose own volume is named in O(wipe_confirm), and only if no device of
    this host is refused.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reads and judges as always, and says what would be blanked.
options:
  devices:
    type: list
    elements: dict
    required: true
    description: The devices wanted.
    options:
      path:
        type: str
        required: true
        description: Its link in /dev/disk/by-id.
      size_gb:
        type: int
        default: 0
        description: Size of the volume; 0 takes any.
  fsid:
    type: str
    required: true
    description: The cluster's own UUID.
  known_osds:
    type: dict
    description: The OSDs that the running cluster knows, uuid to id. Leave it out when the cluster could not be asked.
  wipe_confirm:
    type: list
    elements: str
    default: []
    description: Ids of the volumes whose contents may be destroyed. An OSD that the cluster knows is never blanked.
  wipe:
    type: bool
    default: false
    description: Blank what is found fit for it.
"""

EXAMPLES = r"""
- name: Judge the disks
  slipway.platform.ceph_disk:
    devices:
      - path: /dev/disk/by-id/scsi-0HC_Volume_103
        size_gb: 40
    fsid: 0f4e2f4c-8f0c-4a7c-9a0e-2f9f3a1c7d11
  register: judged
"""

RETURN = r"""
disks:
  description: For each device its path, volume, device, verdict (blank, osd, wipe, refused), osd_id, osd_uuid, faults,
    and whether an OSD on it is unfinished.
  returned: always
  type: list
  elements: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_plan import judge
from ansible_collections.slipway.platform.plugins.module_utils.ceph_disk_read import DiskError, blank, read_disk

UNFINISHED_SECONDS = 30
"""How long an OSD may be in the making: a run that was killed may have left one to the managers."""


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

    def judged() -> list[dict[str, object]]:
        return judge(
            [read_disk(device["path"], device["size_gb"]) for device in given["devices"]],
            fsid=given["fsid"],
            known_osds=given["known_osds"],
            wipe_confirm=given["wipe_confirm"],
        )

    disks = judged()
    deadline = time.monotonic() + UNFINISHED_SECONDS
    while any(disk["unfinished"] for disk in disks) and time.monotonic() < deadline:
        time.sleep(1)
        disks = judged()
    if not given["wipe"]:
        module.exit_json(changed=False, disks=disks)
    refused = [fault for disk in disks for fault in disk["faults"]]  # type: ignore[attr-defined]
    if refused:
        module.fail_json(msg="\n".join(refused), disks=disks)
    doomed = [str(disk["path"]) for disk in disks if disk["verdict"] == "wipe"]
    if doomed and not module.check_mode:
        try:
            for path in doomed:
                blank(path)
        except (OSError, DiskError) as error:
            module.fail_json(msg=f"Blanking failed: {error}", disks=disks)
        disks = judged()
        left = [str(disk["path"]) for disk in disks if disk["path"] in doomed and disk["verdict"] != "blank"]
        if left:
            module.fail_json(msg=f"{', '.join(left)} still holds something after blanking.", disks=disks)
    module.exit_json(changed=bool(doomed), disks=disks)


if __name__ == "__main__":
    main()
