"""Classify the disks that are to become OSDs: pure functions over what ceph_disk_read has read.

A disk is refused unless it is empty, an OSD of this cluster, or confirmed for wiping.
"""

from __future__ import annotations

import re
from typing import Any

BY_ID = re.compile(r"^/dev/disk/by-id/[^/\s]+$")
HETZNER_VOLUME = re.compile(r"^scsi-0HC_Volume_(\d+)$")

# A volume's size is given in GB, which may mean 10⁹ or 2³⁰ bytes.
SMALLEST_SHARE = 0.99 * 10**9
LARGEST_SHARE = 1.01 * 2**30

SYSTEM_MOUNTS = ("/", "/boot", "/boot/efi", "/usr", "/var")

# Signature as libblkid names it → its name in messages.
SIGNATURES = {
    "ceph_bluestore": "a BlueStore label",
    "LVM2_member": "an LVM label",
    "gpt": "a GPT partition table",
    "PMBR": "a GPT partition table",
    "dos": "an MBR partition table",
    "swap": "swap space",
    "swsuspend": "a suspended system",
    "crypto_LUKS": "a LUKS header",
    "linux_raid_member": "a member of a Linux RAID",
    "zfs_member": "a member of a ZFS pool",
    "drbd": "a DRBD device",
}


def volume_id(path: str) -> str:
    """Id of a volume in ceph_osd_wipe_confirm: Hetzner's volume id, or else the name of its link."""
    name = path.rsplit("/", 1)[-1]
    hetzner = HETZNER_VOLUME.match(name)
    return hetzner.group(1) if hetzner else name


def gb(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


def classify(
    facts: list[dict[str, Any]],
    *,
    fsid: str,
    known_osds: dict[str, str] | None = None,
    wipe_confirm: list[str] | None = None,
) -> list[dict[str, Any]]:
    """A verdict for each disk: empty, osd (of this cluster), wipe (confirmed by id) or refused, with its faults.

    `known_osds` are the OSDs of the running cluster, UUID → id; None when the cluster was not reachable.
    """
    confirmed = {str(name) for name in wipe_confirm or []}
    verdicts = []
    for number, disk in enumerate(facts):
        other = next((one for one in facts[:number] if _same(one, disk)), None)
        faults = _hard_faults(disk, other)
        verdict: dict[str, Any] = {
            "path": disk["path"],
            "volume": volume_id(disk["path"]),
            "device": disk.get("device", ""),
            "verdict": "refused",
            "osd_id": None,
            "osd_uuid": None,
            "unfinished": bool(disk.get("label")) and disk["label"]["meta"].get("ready") != "ready",
            "faults": faults,
        }
        verdicts.append(verdict)
        if faults:
            continue
        owner = _owner(disk)
        if (
            owner
            and owner["fsid"] == fsid
            and owner["complete"]
            and (known_osds is None or owner["uuid"] in known_osds)
        ):
            verdict |= {"verdict": "osd", "osd_id": owner["id"], "osd_uuid": owner["uuid"]}
            continue
        faults += _size_faults(disk) + _use_faults(disk)
        contents = _contents(disk, owner, fsid, known_osds)
        known = owner is not None and owner["fsid"] == fsid and (known_osds is None or owner["uuid"] in known_osds)
        if contents and verdict["volume"] in confirmed and not known:
            verdict["verdict"] = "refused" if faults else "wipe"
        elif contents:
            remedy = (
                "Its data may still be needed: inspect it by hand. After the OSD is purged from the cluster, add "
                f"{verdict['volume']} to ceph_osd_wipe_confirm."
                if known
                else f"Nothing was written. To discard its data, add {verdict['volume']} to ceph_osd_wipe_confirm."
            )
            faults.append(f"{disk['path']}: {contents}. {remedy}")
        elif not faults:
            verdict["verdict"] = "empty"
    return verdicts


def cluster_faults(disks: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Faults of the disks of all hosts, and OSDs that exist on two disks."""
    found = [f"{host}: {fault}" for host, verdicts in disks.items() for one in verdicts for fault in one["faults"]]
    uuids: dict[str, str] = {}
    for host, verdicts in disks.items():
        for one in verdicts:
            if one["verdict"] != "osd":
                continue
            name = f"{one['path']} of {host}"
            twin = uuids.setdefault(one["osd_uuid"], name)
            if twin != name:
                found.append(
                    f"{name} and {twin}: both hold osd.{one['osd_id']}, one is a copy of the other. "
                    "Detach the copy; the two must never run at the same time."
                )
    return found


# --- faults that no confirmation lifts ------------------------------------------------------------------------------


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["path"] == other["path"] or (bool(one.get("number")) and one.get("number") == other.get("number"))


def _hard_faults(disk: dict[str, Any], other: dict[str, Any] | None) -> list[str]:
    """Faults that forbid any write to a device, whatever is confirmed."""
    path = disk["path"]
    if not BY_ID.match(path):
        return [
            f"{path}: not a stable name, the kernel may assign another one at each boot. "
            "Give the device by its link in /dev/disk/by-id."
        ]
    if other is not None and other["path"] == path:
        return [f"{path}: listed twice in ceph_osd_devices. List it once."]
    if other is not None:
        return [f"{path} and {other['path']}: the same device ({disk['device']}). List one of them."]
    if disk.get("error") and not disk.get("mounts"):
        return [f"{path}: read failed: {disk['error']}. Nothing was written."]
    if disk["kind"] == "missing":
        return [f"{path}: does not exist. Attach the volume to this host, or remove it from ceph_osd_devices."]
    if disk["kind"] != "block":
        return [f"{path}: not a block device but {disk['kind']}. Give a whole disk."]
    device = disk["device"]
    if disk["partition_of"]:
        return [f"{path}: is {device}, a partition of {disk['partition_of']}. Give a whole disk."]
    system = [mount for mount in disk["mounts"] if mount in SYSTEM_MOUNTS]
    if system:
        return [f"{path}: is {device}, this host's system disk (mounted at {', '.join(system)})."]
    faults = []
    if disk["read_only"]:
        faults.append(f"{path} ({device}): read-only.")
    if disk["mounts"]:
        faults.append(f"{path} ({device}): in use, mounted at {', '.join(disk['mounts'])}.")
    if disk["swaps"]:
        faults.append(f"{path} ({device}): in use as swap ({', '.join(disk['swaps'])}).")
    return faults


def _use_faults(disk: dict[str, Any]) -> list[str]:
    """Users of a device. Not a fault for an OSD of this cluster, whose user is its own daemon."""
    named = f"{disk['path']} ({disk['device']})"
    if disk["holders"]:
        return [f"{named}: in use by {', '.join(disk['holders'])}."]
    if disk["locked"]:
        return [f"{named}: in use, locked by a running OSD."]
    # Mounts and mappings of other containers on this host show only as EBUSY.
    if disk["busy"] and not disk["mounts"] and not disk["swaps"]:
        return [f"{named}: in use, an exclusive open fails with EBUSY."]
    return []


def _size_faults(disk: dict[str, Any]) -> list[str]:
    wanted, size = disk["size_gb"], disk["size"]
    named = f"{disk['path']} ({disk['device']})"
    if not wanted:
        return []
    if size < wanted * SMALLEST_SHARE:
        return [f"{named}: too small, {gb(size)} instead of {wanted} GB."]
    if size > wanted * LARGEST_SHARE:
        return [f"{named}: too big, {gb(size)} instead of {wanted} GB. It may be another volume."]
    return []


# --- contents -------------------------------------------------------------------------------------------------------


def _owner(disk: dict[str, Any]) -> dict[str, Any] | None:
    """Cluster and OSD of a disk, from its BlueStore label or from the tags of its logical volume."""
    label = disk["label"]
    if label is not None:
        meta = label["meta"]
        return {
            "fsid": meta.get("ceph_fsid", ""),
            "id": int(meta["whoami"]) if meta.get("whoami", "").isdigit() else None,
            "uuid": label["osd_uuid"],
            # BlueStore writes `ready` last.
            "complete": label["offset"] == 0 and meta.get("ready") == "ready" and meta.get("whoami", "").isdigit(),
            "name": "osd." + meta["whoami"] if meta.get("whoami") else "an unfinished OSD",
        }
    for tags in disk["logical_volumes"]:
        if tags.get("ceph.type") == "block" and tags.get("ceph.osd_id", "").isdigit():
            return {
                "fsid": tags.get("ceph.cluster_fsid", ""),
                "id": int(tags["ceph.osd_id"]),
                "uuid": tags.get("ceph.osd_fsid", ""),
                "complete": len(disk["logical_volumes"]) == 1,
                "name": f"osd.{tags['ceph.osd_id']}",
            }
    return None


def _contents(disk: dict[str, Any], owner: dict[str, Any] | None, fsid: str, known_osds: dict[str, str] | None) -> str:
    """Contents of a disk as part of a message; empty for an empty disk."""
    if owner is not None:
        if not owner["fsid"]:
            return (
                f"holds {owner['name']} ({owner['uuid']}) without a cluster: "
                "its creation was interrupted, or it is damaged"
            )
        if owner["fsid"] != fsid:
            return f"holds {owner['name']} of another cluster, {owner['fsid']}; ceph_fsid is {fsid}"
        if known_osds is not None and owner["uuid"] not in known_osds:
            held = f"holds {owner['name']} ({owner['uuid']}) of this cluster"
            if known_osds:
                return f"{held}, which is not in the OSD map"
            return f"{held}, and there is no cluster: bootstrap no new one while the data of the old one is needed"
        return f"holds {owner['name']} of this cluster, damaged: its first label is missing or incomplete"
    if disk["label_error"]:
        return f"holds a BlueStore label that cannot be read ({disk['label_error']})"
    kinds = [entry["type"] for entry in disk["signatures"]]
    if kinds:
        names = list(dict.fromkeys(SIGNATURES.get(kind, f"a file system or signature ({kind})") for kind in kinds))
        return f"holds {' and '.join(names)}"
    if disk["partitions"]:
        return f"has partitions ({', '.join(disk['partitions'])})"
    if disk["logical_volumes"]:
        return "holds logical volumes"
    if not disk["zero"]:
        return "holds data of an unknown format at its beginning"
    return ""
