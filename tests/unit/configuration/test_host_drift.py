"""Findings of a host beyond its units: files that a service read at its start, and file systems."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import configuration, configuration_host, host_drift


def test_a_file_that_differs_from_the_one_read_at_the_start_is_a_finding(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("kept", "changed", "missing")]
    for path in paths:
        path.write_text("content")
    digest = hashlib.sha256(b"content").hexdigest()
    record = "\n".join(["0123abcd", *(f"{digest}  {path}" for path in paths)]) + "\n"
    assert host_drift.started_with_findings("rke2", record) == []
    paths[1].write_text("another")
    paths[2].unlink()
    assert host_drift.started_with_findings("rke2", record) == [
        f"{paths[1]} was changed since rke2 started. Run site.yml, which restores and activates it.",
        f"{paths[2]} is missing since rke2 started. Run site.yml, which restores and activates it.",
    ]


@pytest.mark.parametrize(
    ("used", "inodes", "expected"),
    [
        (50, 50, []),
        (90, 50, ["90 % of the space of the file system /data disk are used. Free some, or enlarge the disk."]),
        (50, 95, ["95 % of the inodes of the file system /data disk are used. Free some, or enlarge the disk."]),
    ],
)
def test_a_full_file_system_is_a_finding(
    used: int, inodes: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SimpleNamespace(f_blocks=100, f_bfree=100 - used, f_bavail=100 - used, f_files=100, f_ffree=100 - inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    mounts = (
        "40 20 8:16 / /data\\040disk rw,noatime shared:1 - ext4 /dev/sdb rw\n"
        "41 20 8:16 / /mnt/bind ro,noatime - ext4 /dev/sdb rw\n"
        "42 20 0:5 / /proc rw - proc proc rw\n"
    )
    assert host_drift.mount_findings(mounts, 90) == expected


def test_a_file_system_that_became_read_only_is_a_finding() -> None:
    found = host_drift.mount_findings("20 1 8:1 / / rw,relatime - ext4 /dev/sda1 ro,errors=remount-ro\n", 90)
    volume = "50 20 252:0 / /var/lib/kubelet/pods/1/volumes/data ro - ext4 /dev/rbd0 ro\n"
    assert host_drift.mount_findings(volume, 90) == []
    assert found == ["the file system / is read-only. Read its errors: journalctl --dmesg --grep /dev/sda1."]


def test_every_owner_s_units_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration_host, "STATE_FOLDER", tmp_path)
    monkeypatch.setattr(configuration_host, "STAGING_FOLDER", tmp_path)
    monkeypatch.setattr(host_drift, "MOUNTS", tmp_path / "mounts")
    (tmp_path / "mounts").write_text("")
    module = SimpleNamespace()
    for owner in ("base", "postgresql"):
        host = configuration_host.RealHost(module, owner)
        unit = configuration.Unit("files", files=(configuration.File(str(tmp_path / f"{owner}.conf"), "declared"),))
        configuration.record_verified(unit, host)
        host.close()
    found = host_drift.host_findings(module, 90)
    assert [sentence.split(". ")[0] for sentence in found] == [
        f"{tmp_path}/{owner}.conf is missing since the last run of {owner}" for owner in ("base", "postgresql")
    ]
