"""Findings of a host: differences from its last verified state, and file systems that stop taking data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils import configuration_host
from ansible_collections.slipway.platform.plugins.module_utils.configuration import VERIFIED, drift

MOUNTS = Path("/proc/self/mountinfo")
STARTED_WITH = "slipway-*/started-with"
"""Below /run: the digests of the files that a service read at its start, after a line with its invocation ID."""


def host_findings(module: Any, full_percent: int) -> list[str]:
    """Every finding of the host that the module runs on."""
    found: list[str] = []
    owners = sorted(path.name for path in configuration_host.STATE_FOLDER.glob("*") if path.is_dir())
    for owner in owners:
        host = configuration_host.RealHost(module, owner)
        try:
            differences = drift(host, host.list_records(VERIFIED))
        finally:
            host.close()
        remedy = f"since the last run of {owner}. Find out who changed it; site.yml restores the declared state."
        found += [f"{sentence} {remedy}" for sentence in differences]
    for record in sorted(configuration_host.STAGING_FOLDER.glob(STARTED_WITH)):
        found += started_with_findings(record.parent.name.removeprefix("slipway-"), record.read_text(encoding="utf-8"))
    return found + mount_findings(MOUNTS.read_text(encoding="utf-8"), full_percent)


def started_with_findings(service: str, record: str) -> list[str]:
    """Files that were changed after the service had read them at its start."""
    found = []
    for line in record.splitlines()[1:]:
        digest, path = line.split("  ", 1)
        try:
            current = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except FileNotFoundError:
            current = ""
        if current != digest:
            change = "was changed" if current else "is missing"
            found.append(f"{path} {change} since {service} started. Run site.yml, which restores and activates it.")
    return found


def mount_findings(mounts: str, full_percent: int) -> list[str]:
    """File systems on block devices that are read-only, as after an error, or nearly full."""
    found: list[str] = []
    devices: set[str] = set()
    for line in mounts.splitlines():
        # The options of the file system itself, not those of this mount, which may be read-only on purpose.
        mount, _separator, filesystem = line.partition(" - ")
        point, (kind, device, options) = mount.split()[4], filesystem.split()[:3]
        # Volumes of pods belong to Kubernetes, and may be read-only on purpose.
        volume = point.startswith("/var/lib/kubelet/")
        if volume or not device.startswith("/dev/") or device in devices or kind in {"squashfs", "iso9660"}:
            continue
        devices.add(device)
        path = point.encode().decode("unicode_escape")
        if "ro" in options.split(","):
            found.append(f"the file system {path} is read-only. Read its errors: journalctl --dmesg --grep {device}.")
            continue
        space = os.statvfs(path)
        used = {
            "space": 100 * (space.f_blocks - space.f_bfree) // (space.f_blocks - space.f_bfree + space.f_bavail or 1),
            "inodes": 100 * (space.f_files - space.f_ffree) // (space.f_files or 1),
        }
        found += [
            f"{percent} % of the {what} of the file system {path} are used. Free some, or enlarge the disk."
            for what, percent in used.items()
            if percent >= full_percent
        ]
    return found
