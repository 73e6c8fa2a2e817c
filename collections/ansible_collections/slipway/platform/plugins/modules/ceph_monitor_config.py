"""Ansible module: update the monitor addresses in the configuration of this host's monitor container."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_monitor_config
short_description: Update the monitor addresses in the configuration of this host's monitor container
description:
  - A monitor's configuration lists the monitors at the time of its creation, so those of a new cluster list the first
    one only. cephadm updates it when the monitors change, but not for an unmanaged service, which mon is here. C(ceph)
    and C(cephadm shell) on a healthy host would then wait for a monitor that is down.
  - Only the addresses are changed, in the file that the running container has mounted; the monitor itself is not
    restarted, it uses the monitor map.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports whether the addresses would change.
  diff_mode:
    support: full
    description: Shows the configuration before and after.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  name:
    type: str
    required: true
    description: The monitor of this host.
  addresses:
    type: list
    elements: str
    required: true
    description: Private addresses of all monitors.
"""

EXAMPLES = r"""
- name: Update the monitor addresses
  slipway.platform.ceph_monitor_config:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    name: prod-ceph-1
    addresses: [10.0.1.51, 10.0.1.52, 10.0.1.53]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph_monitor_config import (
    addresses_of,
    with_monitors,
    write_in_place,
)

DATA = Path("/var/lib/ceph")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path = DATA / module.params["fsid"] / f"mon.{module.params['name']}" / "config"
    if not path.is_file():
        if module.check_mode:
            module.exit_json(changed=False)  # the monitor does not exist yet
        module.fail_json(
            msg=f"{path}: does not exist, so mon.{module.params['name']} was not created by cephadm. Redeploy it."
        )
    before = path.read_text(encoding="utf-8")
    if addresses_of(before) == sorted(set(module.params["addresses"])):
        module.exit_json(changed=False)
    try:
        after = with_monitors(before, module.params["addresses"])
    except ValueError as error:
        module.fail_json(msg=f"{path}: {error}. Redeploy the monitor by cephadm, which writes such a line.")
    if not module.check_mode:
        write_in_place(path, after)
    module.exit_json(changed=True, diff={"before": before, "after": after, "before_header": str(path)})


if __name__ == "__main__":
    main()
