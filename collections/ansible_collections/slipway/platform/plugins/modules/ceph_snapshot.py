"""Ansible module: a copy of a monitor's store, with keys and options, proved by reading it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_snapshot
short_description: Copy what the monitors know and prove the copy
description:
  - Stops the monitor of this host for the seconds that the copy takes, since a store that is written to cannot be
    copied, and only if the others keep the quorum. A cluster with a single monitor answers no questions meanwhile;
    clients that are connected go on.
  - Beside the store the copy holds the keys, the key-value store with the keys of encrypted disks, options and maps.
  - Reads the copy back, holds each file against its digest and opens the store with Ceph's own tool.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Says that it would, and does nothing.
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
    description: Where copies lie; made for root alone.
  name:
    type: str
    required: true
    description: Prefix of the copy's name; the monitor and the time are appended.
  keep:
    type: int
    default: 5
    description: How many copies of that name are kept here.
  timeout_seconds:
    type: int
    default: 120
    description: Seconds in which the monitor has to be back in the quorum.
"""

EXAMPLES = r"""
- name: Keep what the monitors know
  slipway.platform.ceph_snapshot:
    fsid: 6f2c5f0e-c0de-11f0-9c3c-0242ac120002
    monitor: prod-ceph-2
    dir: /var/backups/ceph
    name: before-upgrade
"""

RETURN = r"""
snapshot:
  description: Path, size, digest and version of Ceph of the copy, and how many seconds the monitor was away.
  returned: when it was taken
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
    read_back,
    superfluous,
    write,
)

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

    def may_stop(self) -> None:
        monitors = self.cluster.json(["mon", "dump"])
        if self.monitor not in {entry["name"] for entry in monitors["mons"]}:
            raise BackupError(f"mon.{self.monitor} is no monitor of this cluster")
        answer = self.cluster.ask([["mon", "ok-to-stop", self.monitor]], strict=False)[0]
        if answer["code"] and len(monitors["mons"]) > 1:
            raise BackupError(f"mon.{self.monitor} may not be stopped for a copy: {answer['message']}")

    def dumps(self) -> dict[str, str]:
        answers = self.cluster.ask(list(DUMPS.values()), json_wanted=True)
        return {name: answer["output"] for name, answer in zip(DUMPS, answers, strict=True)}

    def image(self) -> str:
        """The image of the monitor that runs: its tool fits its store."""
        code, output, errors = self.module.run_command(
            ["podman", "ps", "--filter", f"name=^ceph-{self.given['fsid']}-mon", "--format", "{{.ImageID}}"]
        )
        if code != 0 or not output.strip():
            raise BackupError(f"the monitor's container is not there: {errors.strip()}")
        return str(output.split()[0])

    def systemctl(self, verb: str) -> None:
        code, _, errors = self.module.run_command(["timeout", "90", "systemctl", verb, self.unit])
        if code != 0:
            raise BackupError(f"systemctl {verb} {self.unit} failed: {errors.strip()}")

    def wait(self) -> None:
        deadline = time.monotonic() + self.given["timeout_seconds"]
        sentence = ""
        while time.monotonic() < deadline:
            try:
                if self.monitor in self.cluster.json(["quorum_status"])["quorum_names"]:
                    return
            except CephError as error:
                sentence = f" ({error})"
            time.sleep(POLL_SECONDS)
        raise BackupError(f"mon.{self.monitor} is not back in the quorum{sentence}; look at journalctl -u {self.unit}")

    def open_store(self, folder: Path, image: str) -> None:
        """Whether RocksDB reads it and the monitors' map is in it."""
        command = ["podman", "run", "--rm", "--network=none", "--user=0", f"--volume={folder}:/copy"]
        question = ["rocksdb", f"/copy/{STORE}", "exists", "monmap", "last_committed"]
        code, output, errors = self.module.run_command(
            ["timeout", "120", *command, "--entrypoint=ceph-kvstore-tool", image, *question]
        )
        if code != 0 or "exists" not in output:
            raise BackupError(f"{self.path} does not open as a monitor's store: {(errors or output).strip()[-500:]}")

    def take(self) -> dict[str, Any]:
        self.may_stop()
        image, dumps = self.image(), self.dumps()
        version = json.loads(dumps["versions.json"]).get("overall", {})
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        began = time.monotonic()
        try:
            self.systemctl("stop")
            write(self.path, self.folder, dumps, {"fsid": self.given["fsid"], "monitor": self.monitor})
        finally:
            self.systemctl("start")
        self.wait()
        away = round(time.monotonic() - began, 1)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            read_back(self.path, Path(folder))
            self.open_store(Path(folder), image)
        for old in superfluous(self.path.parent, f"{self.given['name']}-{self.monitor}", self.given["keep"]):
            old.unlink()
        return {
            "path": str(self.path),
            "size": self.path.stat().st_size,
            "sha256": digest(self.path),
            "versions": sorted(version),
            "away_seconds": away,
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
        module.exit_json(changed=True, snapshot=Snapshot(module).take())
    except (BackupError, CephError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"No snapshot of the monitors of {module.params['fsid']} could be taken: {error}")


if __name__ == "__main__":
    main()
