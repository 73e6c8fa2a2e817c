"""Judge the disks that are to become OSDs: pure functions over what ceph_disk_read has read.

Whatever is not known to be blank, or to be an OSD of the cluster, is refused.
"""

from __future__ import annotations

import re
from typing import Any

BY_ID = re.compile(r"^/dev/disk/by-id/[^/\s]+$")
HETZNER_VOLUME = re.compile(r"^scsi-0HC_Volume_(\d+)$")

# A volume's size is said in GB; whether those are 10⁹ or 2³⁰ bytes is the provider's matter.
SMALLEST_SHARE = 0.99 * 10**9
LARGEST_SHARE = 1.01 * 2**30

SYSTEM_MOUNTS = ("/", "/boot", "/boot/efi", "/usr", "/var")

# What libblkid finds → how a person calls it.
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
    """What names a volume in ceph_osd_wipe_confirm: Hetzner's number of it, or else the name of its link."""
    name = path.rsplit("/", 1)[-1]
    hetzner = HETZNER_VOLUME.match(name)
    return hetzner.group(1) if hetzner else name


def gb(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


def judge(
    facts: list[dict[str, Any]],
    *,
    fsid: str,
    known_osds: dict[str, str] | None = None,
    wipe_confirm: list[str] | None = None,
) -> list[dict[str, Any]]:
    """A verdict for each disk: blank, osd (ours already), wipe (told so by name) or refused, with the reasons.

    known_osds are the OSDs that the running cluster knows, uuid → id; None when it could not be asked.
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
        if owner and owner["fsid"] == fsid and owner["whole"] and (known_osds is None or owner["uuid"] in known_osds):
            verdict |= {"verdict": "osd", "osd_id": owner["id"], "osd_uuid": owner["uuid"]}
            continue
        faults += _size_faults(disk) + _use_faults(disk)
        contents = _contents(disk, owner, fsid, known_osds)
        mine = owner is not None and owner["fsid"] == fsid and (known_osds is None or owner["uuid"] in known_osds)
        if contents and verdict["volume"] in confirmed and not mine:
            verdict["verdict"] = "refused" if faults else "wipe"
        elif contents:
            remedy = (
                "Its data may be wanted yet: look at it by hand. Once that OSD is purged from the cluster, "
                f"{verdict['volume']} can be named in ceph_osd_wipe_confirm."
                if mine
                else f"Nothing was written. If none of it is needed, name {verdict['volume']} in ceph_osd_wipe_confirm."
            )
            faults.append(f"{disk['path']} {contents}. {remedy}")
        elif not faults:
            verdict["verdict"] = "blank"
    return verdicts


def cluster_faults(disks: dict[str, list[dict[str, Any]]]) -> list[str]:
    """All faults of all hosts as sentences, and what can only be seen by looking at all of them."""
    found = [f"{host}: {fault}" for host, verdicts in disks.items() for one in verdicts for fault in one["faults"]]
    uuids: dict[str, str] = {}
    for host, verdicts in disks.items():
        for one in verdicts:
            if one["verdict"] != "osd":
                continue
            where = f"{one['path']} of {host}"
            twin = uuids.setdefault(one["osd_uuid"], where)
            if twin != where:
                found.append(
                    f"{where} and {twin} hold the same osd.{one['osd_id']}: one is a copy of the other. "
                    "They must never run both; detach the copy."
                )
    return found


# --- what can never be agreed to ------------------------------------------------------------------------------------


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["path"] == other["path"] or (bool(one.get("number")) and one.get("number") == other.get("number"))


def _hard_faults(disk: dict[str, Any], other: dict[str, Any] | None) -> list[str]:
    """What forbids to go near a device, whoever confirms it."""
    path = disk["path"]
    if not BY_ID.match(path):
        return [
            f"{path} is no name to keep: the kernel gives such names anew at each start. "
            "Name the device by its link in /dev/disk/by-id."
        ]
    if other is not None and other["path"] == path:
        return [f"{path} is named twice in ceph_osd_devices. Name it once."]
    if other is not None:
        return [f"{path} and {other['path']} are the same device ({disk['device']}). Name one of them."]
    if disk.get("error") and not disk.get("mounts"):
        return [f"{path} could not be read: {disk['error']}. It is left alone."]
    if disk["kind"] == "missing":
        return [f"{path} does not exist. Attach the volume to this host, or take it out of ceph_osd_devices."]
    if disk["kind"] != "block":
        return [f"{path} is no block device but {disk['kind']}. Name a whole disk."]
    device = disk["device"]
    if disk["partition_of"]:
        return [f"{path} is {device}, a partition of {disk['partition_of']}. Name a whole disk."]
    system = [mount for mount in disk["mounts"] if mount in SYSTEM_MOUNTS]
    if system:
        return [f"{path} is {device}, the disk of this host's own system (mounted at {', '.join(system)})."]
    faults = []
    if disk["read_only"]:
        faults.append(f"{path} ({device}) can only be read.")
    if disk["mounts"]:
        faults.append(f"{path} ({device}) is in use: mounted at {', '.join(disk['mounts'])}.")
    if disk["swaps"]:
        faults.append(f"{path} ({device}) is in use as swap ({', '.join(disk['swaps'])}).")
    return faults


def _use_faults(disk: dict[str, Any]) -> list[str]:
    """Who holds a device; for an OSD of ours it is only its own daemon."""
    named = f"{disk['path']} ({disk['device']})"
    if disk["holders"]:
        return [f"{named} is in use: {', '.join(disk['holders'])} stands on it."]
    if disk["locked"]:
        return [f"{named} is in use: a running OSD has it locked."]
    # Mounts and maps of other containers on this host are seen by nothing but the kernel's own refusal.
    if disk["busy"] and not disk["mounts"] and not disk["swaps"]:
        return [f"{named} is in use: the kernel refuses to open it alone."]
    return []


def _size_faults(disk: dict[str, Any]) -> list[str]:
    wanted, size = disk["size_gb"], disk["size"]
    named = f"{disk['path']} ({disk['device']})"
    if not wanted:
        return []
    if size < wanted * SMALLEST_SHARE:
        return [f"{named} is too small: {gb(size)}, and its volume is said to have {wanted} GB."]
    if size > wanted * LARGEST_SHARE:
        return [f"{named} is too big: {gb(size)}, and its volume is said to have {wanted} GB. It may be another one."]
    return []


# --- what lies on it ------------------------------------------------------------------------------------------------


def _owner(disk: dict[str, Any]) -> dict[str, Any] | None:
    """The cluster and OSD that a disk says are its own: by BlueStore's label, or by the tags of its logical volume."""
    label = disk["label"]
    if label is not None:
        meta = label["meta"]
        return {
            "fsid": meta.get("ceph_fsid", ""),
            "id": int(meta["whoami"]) if meta.get("whoami", "").isdigit() else None,
            "uuid": label["osd_uuid"],
            # BlueStore writes `ready` last of all.
            "whole": label["offset"] == 0 and meta.get("ready") == "ready" and meta.get("whoami", "").isdigit(),
            "what": "osd." + meta["whoami"] if meta.get("whoami") else "an unfinished OSD",
        }
    for tags in disk["logical_volumes"]:
        if tags.get("ceph.type") == "block" and tags.get("ceph.osd_id", "").isdigit():
            return {
                "fsid": tags.get("ceph.cluster_fsid", ""),
                "id": int(tags["ceph.osd_id"]),
                "uuid": tags.get("ceph.osd_fsid", ""),
                "whole": len(disk["logical_volumes"]) == 1,
                "what": f"osd.{tags['ceph.osd_id']}",
            }
    return None


def _contents(disk: dict[str, Any], owner: dict[str, Any] | None, fsid: str, known_osds: dict[str, str] | None) -> str:
    """What a disk holds, as the rest of a sentence; empty when it holds nothing."""
    if owner is not None:
        if not owner["fsid"]:
            return (
                f"holds {owner['what']} ({owner['uuid']}) that names no cluster as its own: "
                "something was killed while it was made, or it is damaged"
            )
        if owner["fsid"] != fsid:
            return f"holds {owner['what']} of another cluster, {owner['fsid']}; ours is {fsid}"
        if known_osds is not None and owner["uuid"] not in known_osds:
            held = f"holds {owner['what']} ({owner['uuid']}) of this cluster"
            if known_osds:
                return f"{held}, which the cluster does not know any more"
            return f"{held}, and there is no cluster: found no new one as long as the data of the old one is wanted"
        return f"holds {owner['what']} of this cluster, damaged: its first label is gone or not finished"
    if disk["label_error"]:
        return f"holds a BlueStore label that cannot be read ({disk['label_error']})"
    kinds = [entry["type"] for entry in disk["signatures"]]
    if kinds:
        said = list(dict.fromkeys(SIGNATURES.get(kind, f"a file system or signature ({kind})") for kind in kinds))
        return f"holds {' and '.join(said)}"
    if disk["partitions"]:
        return f"has partitions ({', '.join(disk['partitions'])})"
    if disk["logical_volumes"]:
        return "holds logical volumes"
    if not disk["zero"]:
        return "holds data of no known form at its beginning"
    return ""
