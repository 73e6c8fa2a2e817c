"""Steps that create missing OSDs, and why a wanted OSD is not up and in: pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

NEW_VERDICTS = ("empty", "wipe")
OSD_NAME = re.compile(r"^osd\.(\d+)$")


@dataclass(frozen=True)
class Step:
    """One command and its summary."""

    summary: str
    command: tuple[str, ...]
    input: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Verdicts of ceph_disk by host, and how OSDs are created."""

    hosts: Mapping[str, Sequence[Mapping[str, Any]]]
    method: str = "lvm"
    encrypted: bool = False


def parse_osds(osd_map: Json, metadata: list[Json], tree: Json, specs: list[Json], daemons: list[Json]) -> Json:
    """OSDs of a cluster by id, with their service specifications and daemons."""
    facts = {int(one["id"]): one for one in metadata if "id" in one}
    osds: dict[int, Json] = {}
    for entry in osd_map.get("osds", []):
        number = int(entry["osd"])
        known = facts.get(number, {})
        states = entry.get("state", [])
        osds[number] = {
            "uuid": entry.get("uuid", ""),
            "up": bool(entry.get("up")),
            "in": bool(entry.get("in")),
            "destroyed": "destroyed" in states,
            "host": known.get("hostname", ""),
            "devices": _devices(known),
        }
    for node in tree.get("nodes", []):
        if node.get("type") == "host":
            for number in node.get("children", []):
                if number in osds:
                    osds[number]["host"] = osds[number]["host"] or node["name"]
    return {
        "osds": osds,
        "specs": {str(spec.get("service_id", "")): spec for spec in specs if spec.get("service_type") == "osd"},
        "daemons": {
            int(match[1]): {"host": str(one.get("hostname", "")), "status": str(one.get("status_desc", ""))}
            for one in daemons
            if (match := OSD_NAME.match(str(one.get("daemon_name", ""))))
        },
    }


def _devices(metadata: Json) -> list[str]:
    """Device names below an OSD, as it reports them: sdb for /dev/sdb or for a logical volume on it."""
    names = str(metadata.get("devices", "")).split(",")
    names.append(str(metadata.get("bluestore_bdev_dev_node", "")).removeprefix("/dev/"))
    return sorted({name for name in names if name})


def osd_spec(host: str, disks: Sequence[Mapping[str, Any]], wanted: Wanted, *, unmanaged: bool) -> Json:
    spec: Json = {
        "service_type": "osd",
        "service_id": host,
        "placement": {"hosts": [host]},
        "spec": {
            "data_devices": {"paths": [disk["path"] for disk in disks]},
            "encrypted": wanted.encrypted,
            "filter_logic": "AND",
            "method": wanted.method,
            "objectstore": "bluestore",
        },
    }
    return spec | {"unmanaged": True} if unmanaged else spec


def _shape(spec: Json | None) -> Any:
    """The fields of a specification that this module sets, in one notation."""
    if spec is None:
        return None
    inner = spec.get("spec", {})
    paths = inner.get("data_devices", {}).get("paths", [])
    return (
        [
            host if isinstance(host, str) else host.get("hostname")
            for host in spec.get("placement", {}).get("hosts", [])
        ],
        sorted(path if isinstance(path, str) else path.get("path", "") for path in paths),
        bool(inner.get("encrypted", False)),
        inner.get("method") or "lvm",
        bool(spec.get("unmanaged", False)),
    )


def same_spec(have: Json | None, want: Json) -> bool:
    return bool(_shape(have) == _shape(want))


def faults(view: Json, wanted: Wanted) -> list[str]:
    """What forbids the creation of OSDs, one message each."""
    found = []
    if wanted.encrypted and wanted.method != "lvm":
        found.append(
            f"ceph_osd_encryption_enabled: true, but ceph_osd_method is {wanted.method}, and cephadm encrypts logical "
            "volumes only. Set ceph_osd_method to lvm, or disable encryption."
        )
    for name, spec in sorted(view["specs"].items()):
        paths = spec.get("spec", {}).get("data_devices", {}).get("paths")
        if name not in wanted.hosts and not spec.get("unmanaged") and not paths:
            found.append(
                f"osd.{name}: this service creates an OSD on every available disk, checked or not. "
                f"Run `ceph orch set-unmanaged osd.{name}` first."
            )
    for host, disks in sorted(wanted.hosts.items()):
        for disk in disks:
            osd = view["osds"].get(disk["osd_id"]) if disk["verdict"] == "osd" else None
            if osd and osd["up"] and osd["host"] and osd["host"] != host:
                found.append(
                    f"{disk['path']} of {host}: holds osd.{disk['osd_id']}, which runs on {osd['host']}; one of the "
                    "two disks is a copy. Detach the copy."
                )
    return found


def creation_steps(view: Json, wanted: Wanted) -> list[Step]:
    """Commands that create missing OSDs and start those that are down."""
    purges, specs, summaries, restarts = [], [], [], []
    for host, disks in wanted.hosts.items():
        fresh = [_name(disk) for disk in disks if disk["verdict"] in NEW_VERDICTS]
        if fresh:
            specs.append(osd_spec(host, disks, wanted, unmanaged=False))
            summaries.append(f"create OSDs on {', '.join(fresh)} of {host}")
            purges += _purges(view, host) if wanted.method == "raw" else []
        down = [disk["osd_id"] for disk in disks if disk["verdict"] == "osd" and not _runs(view, disk["osd_id"])]
        missing = [f"osd.{number}" for number in down if number not in view["daemons"]]
        if missing:
            restarts.append(
                Step(f"redeploy the daemons of {', '.join(missing)} of {host}", ("cephadm", "osd", "activate", host))
            )
        restarts += [_start(view, host, number) for number in down if number in view["daemons"]]
    return [*purges, *([_apply("; ".join(summaries), specs)] if specs else []), *restarts]


def _purges(view: Json, host: str) -> list[Step]:
    """Purge destroyed OSDs, so that their id is the lowest free one, which the next OSD gets.

    cephadm reuses the id of a destroyed OSD by an option that `ceph-volume raw` does not have, and then creates no OSD
    (20.2.4, ceph/deployment/translate.py).
    """
    return [
        Step(
            f"purge the destroyed osd.{number} of {host}, so that its id is free",
            ("osd", "purge", str(number), "--force", "--yes-i-really-mean-it"),
        )
        for number, osd in sorted(view["osds"].items())
        if osd["destroyed"] and osd["host"] == host
    ]


def _start(view: Json, host: str, number: int) -> Step:
    status = view["daemons"][number]["status"] or "down"
    return Step(f"start osd.{number} of {host}, which is {status}", ("orch", "daemon", "restart", f"osd.{number}"))


def _apply(summary: str, specs: list[Json]) -> Step:
    return Step(summary, ("orch", "apply"), "---\n".join(json.dumps(spec) + "\n" for spec in specs))


def unmanage_steps(view: Json, wanted: Wanted) -> list[Step]:
    """Set the specifications to unmanaged, so that cephadm creates no further OSD by itself."""
    different = [
        spec
        for host, disks in wanted.hosts.items()
        if disks and not same_spec(view["specs"].get(host), spec := osd_spec(host, disks, wanted, unmanaged=True))
    ]
    hosts = ", ".join(spec["service_id"] for spec in different)
    return [_apply(f"set the OSD services of {hosts} to unmanaged", different)] if different else []


def unmet(view: Json, wanted: Wanted) -> list[str]:
    """Wanted OSDs that are not up and in, one message each."""
    found = []
    for host, disks in wanted.hosts.items():
        for disk in disks:
            name = f"{_name(disk)} of {host}"
            number = disk["osd_id"] if disk["verdict"] == "osd" else _created_on(view, host, disk)
            if number is None:
                found.append(f"{name} is not an OSD yet")
                continue
            osd = view["osds"].get(number)
            if osd is None:
                found.append(f"osd.{number} ({name}) is not in the OSD map")
            elif not osd["up"]:
                status = view["daemons"].get(number, {}).get("status") or "without a daemon"
                found.append(f"osd.{number} ({name}) is down ({status})")
            elif not osd["in"]:
                found.append(f"osd.{number} ({name}) is out; `ceph osd in {number}` reverts that")
    return found


def _name(disk: Mapping[str, Any]) -> str:
    return str(disk["path"]).rsplit("/", 1)[-1]


def _runs(view: Json, number: int) -> bool:
    return bool(view["osds"].get(number, {}).get("up"))


def _created_on(view: Json, host: str, disk: Mapping[str, Any]) -> int | None:
    """The OSD that was created on a disk since its verdict was empty."""
    node = str(disk["device"]).removeprefix("/dev/")
    return next(
        (
            number
            for number, osd in view["osds"].items()
            if osd["host"] == host and node in osd["devices"] and osd["up"] and not osd["destroyed"]
        ),
        None,
    )
