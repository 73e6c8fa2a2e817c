"""The OSD device of a real cluster: accepted for that cluster, refused for another one."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["ansible://ceph"]

ANOTHER = "9b8a1111-2222-4333-8444-555566667777"


def test_a_running_osd_belongs_to_its_cluster_and_is_never_wiped(host: Host) -> None:
    path = str(host.check_output("ls /dev/disk/by-id/scsi-0HC_Volume_*"))
    with host.sudo():
        fsid = host.check_output("ls -d /var/lib/ceph/*-*-*-*-* | head -n 1").rsplit("/", 1)[-1]
        running = host.check_output(f"ls /var/lib/ceph/{fsid} | grep '^osd[.]'")

    def run_module(cluster: str, **more: Any) -> dict[str, Any]:
        devices = [{"path": path, "size_gb": 10}]
        arguments = json.dumps({"fsid": cluster, "devices": devices, "wipe_confirm": [path.rsplit("_", 1)[-1]], **more})
        # In check mode, so that a bug in the module does not destroy the device.
        return dict(host.ansible("slipway.platform.ceph_disk", arguments, check=True, become=True))

    own = run_module(fsid, wipe=True)
    disk = own["disks"][0]
    assert (disk["verdict"], f"osd.{disk['osd_id']}", disk["faults"]) == ("osd", running, [])
    assert own["changed"] is False

    other = run_module(ANOTHER)["disks"][0]
    assert other["verdict"] == "refused"
    assert "in use" in other["faults"][0]
