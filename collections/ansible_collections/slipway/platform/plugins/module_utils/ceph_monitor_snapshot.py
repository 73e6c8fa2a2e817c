"""Back up the monitor store of a host, and verify the backup: for the module ceph_snapshot and on a schedule."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from ansible_collections.slipway.platform.plugins.module_utils.output import shortened
from ansible_collections.slipway.platform.plugins.module_utils.waiting import NotMet, wait_until

POLL_SECONDS = 1.0


class MonitorSnapshot:
    """A backup of the monitor of this host.

    `run_command` is AnsibleModule.run_command or its like: (arguments) → (code, output, errors).
    """

    def __init__(
        self,
        run_command: Callable[..., tuple[int, str, str]],
        *,
        fsid: str,
        monitor: str,
        folder: str,
        name: str,
        keep: int,
        timeout_seconds: int,
    ) -> None:
        self.run_command, self.fsid, self.monitor = run_command, fsid, monitor
        self.name, self.keep, self.timeout_seconds = name, keep, timeout_seconds
        self.cluster = Cluster(run_command, fsid)
        self.unit = f"ceph-{fsid}@mon.{monitor}.service"
        self.folder = DATA / fsid / f"mon.{monitor}"
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = Path(folder) / f"{name}-{monitor}-{stamp}.tar.gz"

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
        code, output, errors = self.run_command(
            ["podman", "ps", "--filter", f"name=^ceph-{self.fsid}-mon", "--format", "{{.ImageID}}"]
        )
        if code != 0 or not output.strip():
            raise BackupError(f"the monitor's container is not running: {errors.strip()}")
        return str(output.split()[0])

    def systemctl(self, verb: str) -> None:
        code, _, errors = self.run_command(["timeout", "90", "systemctl", verb, self.unit])
        if code != 0:
            raise BackupError(f"systemctl {verb} {self.unit} failed: {errors.strip()}")

    def wait(self) -> None:
        try:
            wait_until(
                f"mon.{self.monitor} after its restart",
                lambda: self.cluster.json(["quorum_status"])["quorum_names"],
                lambda quorum: [] if self.monitor in quorum else [f"not in the quorum ({', '.join(quorum)})"],
                timeout_seconds=self.timeout_seconds,
                interval_seconds=POLL_SECONDS,
                passing=CephError,
            )
        except NotMet as error:
            raise BackupError(f"{error}; read journalctl -u {self.unit}") from error

    def verify_store(self, folder: Path, image: str) -> None:
        """Verify that RocksDB opens the store and that it contains the monitor map."""
        command = ["podman", "run", "--rm", "--network=none", "--user=0", f"--volume={folder}:/backup"]
        arguments = ["rocksdb", f"/backup/{STORE}", "exists", "monmap", "last_committed"]
        code, output, errors = self.run_command(
            ["timeout", "120", *command, "--entrypoint=ceph-kvstore-tool", image, *arguments]
        )
        if code != 0 or "exists" not in output:
            raise BackupError(f"{self.path}: not a valid monitor store: {shortened(errors or output, 500)}")

    def create(self) -> dict[str, Any]:
        self.require_stoppable()
        image, dumps = self.image(), self.dumps()
        version = json.loads(dumps["versions.json"]).get("overall", {})
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        stopped_at = time.monotonic()
        try:
            self.systemctl("stop")
            write(self.path, self.folder, dumps, {"fsid": self.fsid, "monitor": self.monitor})
        finally:
            self.systemctl("start")
        self.wait()
        downtime_seconds = round(time.monotonic() - stopped_at, 1)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            verify(self.path, Path(folder))
            self.verify_store(Path(folder), image)
        for old in expired(self.path.parent, f"{self.name}-{self.monitor}", self.keep):
            old.unlink()
        return {
            "path": str(self.path),
            "size": self.path.stat().st_size,
            "sha256": digest(self.path),
            "versions": sorted(version),
            "downtime_seconds": downtime_seconds,
        }
