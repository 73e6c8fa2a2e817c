"""Ansible module: tell the monitor's container of this host which monitors there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_monitor_config
short_description: Tell the monitor's container of this host which monitors there are
description:
  - A monitor's configuration names the monitors that there were when it was made, so those of a new cluster name the
    first one alone. cephadm writes it again when monitors come and go, but not for an unmanaged service, which the
    monitors' is. Then whoever asks C(ceph) or C(cephadm shell) on a host that is well waits for a monitor that is gone.
  - Only the addresses are changed, in the file that the running container has mounted; the monitor itself is not
    restarted, it finds the others by its own map.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says whether the addresses would change.
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
- name: Tell the monitor of the others
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
            module.exit_json(changed=False)  # the monitor is not there yet
        module.fail_json(msg=f"{path} is not there, so mon.{module.params['name']} is not of cephadm's making.")
    before = path.read_text(encoding="utf-8")
    if addresses_of(before) == sorted(set(module.params["addresses"])):
        module.exit_json(changed=False)
    try:
        after = with_monitors(before, module.params["addresses"])
    except ValueError as error:
        module.fail_json(msg=f"{path} cannot be corrected: {error}. Look at it; cephadm writes such a line.")
    if not module.check_mode:
        write_in_place(path, after)
    module.exit_json(changed=True, diff={"before": before, "after": after, "before_header": str(path)})


if __name__ == "__main__":
    main()
