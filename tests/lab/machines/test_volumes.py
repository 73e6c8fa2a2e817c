"""Volumes: block devices with a persistent name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machines.base import MachineError, VolumeSpec
from lab.machines.volumes import Device, attach_script, detach_script
from tests.lab.machines.conftest import Lab
from tests.support.deadlines import until

BY_ID = "/dev/disk/by-id/scsi-0HC_Volume_90"


def test_scripts_for_hosts() -> None:
    device = Device(90, "loop7", 7, 7)
    assert device.link == BY_ID
    assert device.line == "7 7 loop7 0HC_Volume_90"
    script = attach_script(device, mount=True, filesystem="ext4")
    assert f"ln -sfn ../../loop7 {BY_ID}" in script
    assert f"{BY_ID} /mnt/HC_Volume_90 ext4 discard,nofail,defaults 0 0" in script
    assert "fstab" not in attach_script(device, mount=False, filesystem="")
    assert "umount --lazy" in detach_script(device)


@pytest.fixture
def volume(lab: Lab) -> Iterator[VolumeSpec]:
    spec = VolumeSpec(90, 10, "ext4")
    lab.machines.create_volume(spec)
    yield spec
    for server_id in (1, 2):
        lab.machines.detach_volume(90, server_id)
    lab.machines.delete_volume(90)


@pytest.mark.real
def test_a_volume_keeps_its_data_over_restart_resize_and_move(lab: Lab, volume: VolumeSpec) -> None:
    lab.machines.attach_volume(90, 2)
    lab.machines.attach_volume(90, 2)
    assert lab.output(2, f"blockdev --getsize64 {BY_ID}") == str(10 * 2**30)
    assert lab.output(2, "find /dev -type b | wc -l") == "1"
    lab.output(2, f"mount {BY_ID} /mnt && echo data > /mnt/file && sync")
    lab.output(2, f"echo '{BY_ID} /mnt ext4 defaults 0 2' >> /etc/fstab")
    lab.machines.power_off(2)
    lab.machines.resize_volume(VolumeSpec(90, 12, "ext4"))
    lab.machines.power_on(lab.specs[2])
    lab.wait_for_ssh(2)
    # Mounted during boot: the link exists before units need it.
    assert lab.output(2, "cat /mnt/file") == "data"
    lab.machines.resize_volume(VolumeSpec(90, 14, "ext4"))
    assert lab.output(2, f"blockdev --getsize64 {BY_ID}") == str(14 * 2**30)
    lab.output(2, "sed -i '/by-id/d' /etc/fstab")
    lab.machines.detach_volume(90, 2)
    assert lab.output(2, "find /dev -type b; ls /dev/disk/by-id; findmnt /mnt || true") == ""
    lab.machines.attach_volume(90, 1)
    assert lab.output(1, f"mount {BY_ID} /mnt && cat /mnt/file && umount /mnt") == "data"


@pytest.mark.real
def test_automount(lab: Lab, volume: VolumeSpec) -> None:
    lab.machines.attach_volume(90, 1, automount=True)
    assert lab.output(1, "findmnt --noheadings --output FSTYPE /mnt/HC_Volume_90") == "ext4"
    lab.machines.detach_volume(90, 1)
    assert lab.output(1, "grep -c HC_Volume /etc/fstab || true") == "0"
    lab.machines.power_off(2)
    lab.machines.attach_volume(90, 2, automount=True)
    lab.machines.power_on(lab.specs[2])
    # A boot does not wait for the volume (nofail), so SSH may answer before it is mounted.
    until(lambda: lab.run(2, "findmnt --noheadings --output FSTYPE /mnt/HC_Volume_90").stdout.strip() == "ext4", 30)


@pytest.mark.real
def test_formats(lab: Lab) -> None:
    with pytest.raises(MachineError, match="btrfs"):
        lab.machines.create_volume(VolumeSpec(91, 10, "btrfs"))
    for volume_id, format_ in ((92, "xfs"), (93, None)):
        lab.machines.create_volume(VolumeSpec(volume_id, 10, format_))
        lab.machines.attach_volume(volume_id, 1)
        link = f"/dev/disk/by-id/scsi-0HC_Volume_{volume_id}"
        assert lab.output(1, f"blkid -o value -s TYPE {link} || true") == (format_ or "")
        lab.machines.detach_volume(volume_id, 1)
        lab.machines.delete_volume(volume_id)


@pytest.mark.real
def test_a_missing_volume_is_an_error(lab: Lab) -> None:
    with pytest.raises(MachineError, match="volume 99 has no data"):
        lab.machines.attach_volume(99, 1)
    lab.machines.delete_volume(99)
