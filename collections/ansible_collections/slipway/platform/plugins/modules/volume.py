#!/usr/bin/python
"""Mount the volume of a service, with a filesystem that is only created on an empty device."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume
short_description: Mount the volume of a service and never overwrite data
description:
  - Creates an ext4 filesystem on a device that is empty according to wipefs, blkid and lsblk. Fails on any other device
    that does not carry the label.
  - Mounts it by a systemd unit, so that units with C(RequiresMountsFor) wait for it, and grows it with the device.
  - Supports check mode and needs no program that a Debian host lacks.
options:
  device:
    description: The device, by its name below C(/dev/disk/by-id).
    type: str
    required: true
  path:
    description: Mount point.
    type: path
    required: true
  label:
    description: Label of the filesystem, which identifies it; at most 16 characters.
    type: str
    required: true
  options:
    description: Options of the mount.
    type: str
    default: noatime,nodev,nosuid
  owner:
    description: Owner of the mounted folder.
    type: str
    default: root
  group:
    description: Group of the mounted folder.
    type: str
    default: root
  mode:
    description: Octal mode of the mounted folder.
    type: str
    default: "0755"
author: [Slipway]
attributes:
  check_mode: {support: full, description: Reports what would change.}
  diff_mode: {support: none, description: Returns the reasons instead.}
"""

EXAMPLES = r"""
- name: Mount the volume of the database
  slipway.platform.volume:
    device: /dev/disk/by-id/scsi-0HC_Volume_1234
    path: /var/lib/postgresql
    label: postgresql
    owner: postgres
    group: postgres
"""

RETURN = r"""
reasons:
  description: Reasons of the change.
  returned: always
  type: list
unit:
  description: Name of the mount unit.
  returned: always
  type: str
"""

import grp
import json
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils.volume import (
    BY_ID,
    Found,
    Plan,
    VolumeError,
    Wanted,
    devices_on_top,
    escape,
    filesystem_bytes,
    parse_export,
    plan,
    signatures,
    unit_text,
)

UNITS = Path("/etc/systemd/system")


class Host:
    """The host that the module runs on."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def run(self, *command: str, accept: tuple[int, ...] = (0,)) -> str:
        program = self.module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            raise VolumeError(f"the program {command[0]} is not installed. Install its package.")
        code, out, err = self.module.run_command([program, *command[1:]], environ_update={"LC_ALL": "C.UTF-8"})
        if code not in accept:
            raise VolumeError(f"`{' '.join(command)}` failed: {(err or out).strip() or 'no output'}")
        return str(out)

    def find(self, wanted: Wanted) -> Found:
        known = tuple(sorted(entry.name for entry in Path(BY_ID).iterdir())) if Path(BY_ID).is_dir() else ()
        device = Path(wanted.device)
        if not device.exists():
            return Found(exists=False, known=known)
        number = device.stat()
        if not stat.S_ISBLK(number.st_mode):
            return Found(exists=True, block_device=False)
        node = str(device.resolve())
        probed = parse_export(self.run("blkid", "--probe", "--output", "export", node, accept=(0, 2)))
        erasable = json.loads(self.run("wipefs", "--json", "--no-act", node) or "{}")
        below = json.loads(self.run("lsblk", "--json", "--output", "NAME", node))
        filesystem = probed.get("TYPE", "")
        size = 0
        if filesystem == "ext4":
            size = filesystem_bytes(self.run("dumpe2fs", "-h", node))
        mounts = self.mounts()
        here = next((source for source, target in reversed(mounts) if target == wanted.path), "")
        name = escape(wanted.path)
        owner, group, mode = self.ownership(wanted.path)
        return Found(
            exists=True,
            node=node,
            size_bytes=int(self.run("blockdev", "--getsize64", node)),
            signatures=signatures(erasable, probed),
            filesystem=filesystem,
            label=probed.get("LABEL", ""),
            uuid=probed.get("UUID", ""),
            filesystem_bytes=size,
            parts=devices_on_top(below["blockdevices"]),
            mounted_at=tuple(target for source, target in mounts if source == node),
            mounted_here=here,
            hidden=() if here else self.hidden(wanted.path),
            unit=(UNITS / name).read_text(encoding="utf-8") if (UNITS / name).exists() else "",
            enabled=self.run("systemctl", "is-enabled", name, accept=(0, 1, 3, 4)).strip() == "enabled",
            owner=owner,
            group=group,
            mode=mode,
        )

    def mounts(self) -> list[tuple[str, str]]:
        """Device (its own name) and mount point of all mounts of block devices."""
        numbers = {}
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            fields = line.split(" ")
            source = fields[fields.index("-") + 2]
            numbers[fields[4].replace("\\040", " ")] = source
        return [(os.path.realpath(source), target) for target, source in numbers.items() if source.startswith("/dev/")]

    def hidden(self, path: str) -> tuple[str, ...]:
        directory = Path(path)
        return tuple(sorted(entry.name for entry in directory.iterdir())) if directory.is_dir() else ()

    def ownership(self, path: str) -> tuple[str, str, int]:
        try:
            found = Path(path).stat()
            return (
                pwd.getpwuid(found.st_uid).pw_name,
                grp.getgrgid(found.st_gid).gr_name,
                stat.S_IMODE(found.st_mode),
            )
        except (FileNotFoundError, KeyError):
            return "", "", 0

    def apply(self, wanted: Wanted, planned: Plan, found: Found) -> None:
        name = escape(wanted.path)
        if planned.make_filesystem:
            self.run("mkfs.ext4", "-q", "-m", "1", "-L", wanted.label, found.node)
        if planned.write_unit:
            (UNITS / name).write_text(unit_text(wanted), encoding="utf-8")
            (UNITS / name).chmod(0o644)
        if planned.write_unit or planned.mount:
            # Also makes systemd detect devices that were attached since.
            self.run("systemctl", "daemon-reload")
        if planned.enable:
            self.run("systemctl", "enable", "--quiet", name)
        if planned.mount:
            os.umask(0o022)  # for parent directories, independent of the umask that sudo sets
            Path(wanted.path).mkdir(mode=0o755, parents=True, exist_ok=True)
            self.run("systemctl", "start", name)
            if not any(target == wanted.path for _source, target in self.mounts()):
                raise VolumeError(
                    f"systemd reports {name} as started, but {wanted.path} is no mount point. Read its journal."
                )
        if planned.own:
            shutil.chown(wanted.path, wanted.owner, wanted.group)
            Path(wanted.path).chmod(wanted.mode)
        if planned.grow:
            self.run("resize2fs", found.node)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "label": {"type": "str", "required": True},
            "options": {"type": "str", "default": "noatime,nodev,nosuid"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0755"},
        },
        supports_check_mode=True,
    )
    values = dict(module.params) | {"mode": int(module.params["mode"], 8)}
    wanted = Wanted(**values)
    host = Host(module)
    try:
        found = host.find(wanted)
        planned = plan(wanted, found)
        if planned.changed and not module.check_mode:
            host.apply(wanted, planned, found)
    except VolumeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=planned.changed, reasons=list(planned.reasons), unit=escape(wanted.path))


if __name__ == "__main__":
    main()
