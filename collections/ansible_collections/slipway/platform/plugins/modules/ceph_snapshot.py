"""Ansible module: a verified backup of a monitor store, with keys and options."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_snapshot
short_description: Back up a monitor store and verify the backup
description:
  - Stops the monitor of this host for the seconds of the backup, since a store in use cannot be copied, and
    only if the other monitors keep the quorum. A cluster with a single monitor has no quorum meanwhile; connected
    clients continue.
  - Beside the store the backup contains the keys, the key-value store with the keys of encrypted disks, options and
    maps.
  - Reads the backup, compares each file with its digest and opens the store with ceph-kvstore-tool.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Reports a change without making a backup.
options:
  fsid:
    type: str
    required: true
    description: The cluster's id.
  monitor:
    type: str
    required: true
    description: Name of the monitor on this host.
  dir:
    type: path
    required: true
    description: Directory of the backups, created with mode 0700.
  name:
    type: str
    required: true
    description: Prefix of the backup's name; the monitor and the time are appended.
  keep:
    type: int
    default: 5
    description: Number of backups with that prefix to retain on this host.
  timeout_seconds:
    type: int
    default: 120
    description: Timeout in seconds for the monitor to rejoin the quorum.
"""

EXAMPLES = r"""
- name: Back up the monitor store
  slipway.platform.ceph_snapshot:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    monitor: prod-ceph-2
    dir: /var/backups/ceph
    name: before-upgrade
"""

RETURN = r"""
snapshot:
  description: Path, size, digest and Ceph versions of the backup, and the downtime of the monitor in seconds.
  returned: when a backup was made
  type: dict
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.ceph import DATA, CephError, Cluster
from ansible_collections.slipway.platform.plugins.module_utils.ceph_backup import (
    DUMPS,
    STORE,
    BackupError,
    digest,
    expired,
    verify,
    write,
)
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0


class Snapshot:
    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.given = module, module.params
        self.monitor = self.given["monitor"]
        self.cluster = Cluster(module.run_command, self.given["fsid"])
        self.unit = f"ceph-{self.given['fsid']}@mon.{self.monitor}.service"
        self.folder = DATA / self.given["fsid"] / f"mon.{self.monitor}"
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = Path(self.given["dir"]) / f"{self.given['name']}-{self.monitor}-{stamp}.tar.gz"

    def require_stoppable(self) -> None:
        monitors = self.cluster.json(["mon", "dump"])
        if self.monitor not in {entry["name"] for entry in monitors["mons"]}:
            raise BackupError(f"mon.{self.monitor} is not a monitor of this cluster")
        answer = self.cluster.execute([["mon", "ok-to-stop", self.monitor]], strict=False)[0]
        if answer["code"] and len(monitors["mons"]) > 1:
            raise BackupError(f"mon.{self.monitor} is not ok-to-stop: {answer['message']}")

    def dumps(self) -> dict[str, str]:
        answers = self.cluster.execute(list(DUMPS.values()), json_wanted=True)
        return {name: answer["output"] for name, answer in zip(DUMPS, answers, strict=True)}

    def image(self) -> str:
        """The image of the running monitor, whose ceph-kvstore-tool matches its store."""
        code, output, errors = self.module.run_command(
            ["podman", "ps", "--filter", f"name=^ceph-{self.given['fsid']}-mon", "--format", "{{.ImageID}}"]
        )
        if code != 0 or not output.strip():
            raise BackupError(f"the monitor's container is not running: {errors.strip()}")
        return str(output.split()[0])

    def systemctl(self, verb: str) -> None:
        code, _, errors = self.module.run_command(["timeout", "90", "systemctl", verb, self.unit])
        if code != 0:
            raise BackupError(f"systemctl {verb} {self.unit} failed: {errors.strip()}")

    def wait(self) -> None:
        try:
            wait_until(
                f"mon.{self.monitor} after its restart",
                lambda: self.cluster.json(["quorum_status"])["quorum_names"],
                lambda quorum: [] if self.monitor in quorum else [f"not in the quorum ({', '.join(quorum)})"],
                timeout_seconds=self.given["timeout_seconds"],
                interval_seconds=POLL_SECONDS,
                passing=CephError,
            )
        except NotMet as error:
            raise BackupError(f"{error}; read journalctl -u {self.unit}") from error

    def verify_store(self, folder: Path, image: str) -> None:
        """Verify that RocksDB opens the store and that it contains the monitor map."""
        command = ["podman", "run", "--rm", "--network=none", "--user=0", f"--volume={folder}:/backup"]
        arguments = ["rocksdb", f"/backup/{STORE}", "exists", "monmap", "last_committed"]
        code, output, errors = self.module.run_command(
            ["timeout", "120", *command, "--entrypoint=ceph-kvstore-tool", image, *arguments]
        )
        if code != 0 or "exists" not in output:
            raise BackupError(f"{self.path}: not a valid monitor store: {(errors or output).strip()[-500:]}")

    def create(self) -> dict[str, Any]:
        self.require_stoppable()
        image, dumps = self.image(), self.dumps()
        version = json.loads(dumps["versions.json"]).get("overall", {})
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        stopped_at = time.monotonic()
        try:
            self.systemctl("stop")
            write(self.path, self.folder, dumps, {"fsid": self.given["fsid"], "monitor": self.monitor})
        finally:
            self.systemctl("start")
        self.wait()
        downtime_seconds = round(time.monotonic() - stopped_at, 1)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            verify(self.path, Path(folder))
            self.verify_store(Path(folder), image)
        for old in expired(self.path.parent, f"{self.given['name']}-{self.monitor}", self.given["keep"]):
            old.unlink()
        return {
            "path": str(self.path),
            "size": self.path.stat().st_size,
            "sha256": digest(self.path),
            "versions": sorted(version),
            "downtime_seconds": downtime_seconds,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "monitor": {"type": "str", "required": True},
            "dir": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 5},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        module.exit_json(changed=True, snapshot=Snapshot(module).create())
    except (BackupError, CephError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(
            msg=f"Backup of a monitor of cluster {module.params['fsid']}: {error}. Correct the cause and run again."
        )


if __name__ == "__main__":
    main()
