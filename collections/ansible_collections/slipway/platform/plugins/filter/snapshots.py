"""Filters of the role s3_snapshot: its inputs, its configuration, its timers; and the listing of the bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.module_utils.schedules import ScheduleError, calendar_from_cron
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_list import restore_report

RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
SAVED_PARTS = ("etcd", "postgresql", "ceph", "config")
ENCRYPTED = ("ceph", "config")
DRILLED = ("etcd", "ceph", "config")
"""Parts with a drill of this role; PostgreSQL has its own."""
TIMER = """\
# Written by the role s3_snapshot. Changes made here are overwritten.
[Unit]
Description=Snapshots: {part}

[Timer]
OnCalendar={calendar}
RandomizedDelaySec=5min
# Runs missed runs when the host is up again.
Persistent=true
Unit=slipway-snapshot@{part}.service

[Install]
WantedBy=timers.target
"""


def faults(
    parts: Sequence[str],
    host: str,
    keys: Mapping[str, Any],
    public_key: str,
    etcd_schedule: str,
    config_paths: Sequence[str],
    fsid: str,
    gateway: Mapping[str, Any],
    buckets: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Invalid inputs of the role, each as one sentence."""
    found = [
        f"{host}: s3_snapshot_keys has no access_key and secret_key for {part}. Run "
        "playbooks/operations/create_secrets.yml, or add the provider's keys to vault.yml"
        for part in parts
        if not (keys.get(part, {}).get("access_key") and keys.get(part, {}).get("secret_key"))
    ]
    if any(part in ENCRYPTED for part in parts) and not RECIPIENT.fullmatch(public_key):
        found.append(
            f"{host}: s3_snapshot_escrow_public_key is {public_key!r}, which is no public key of age. Run "
            "playbooks/operations/create_secrets.yml, which creates the pair"
        )
    if "etcd" in parts:
        try:
            calendar_from_cron(etcd_schedule)
        except ScheduleError as error:
            found.append(f"{host}: {error}. Correct rke2_etcd_snapshot_schedule")
    if "config" in parts:
        found += [
            f"{host}: s3_snapshot_config_paths has {path!r}, which is not absolute. Begin it with /"
            for path in config_paths
            if not path.startswith("/")
        ]
        if not config_paths:
            found.append(f"{host}: s3_snapshot_config_paths is empty. Name files, or remove config from the parts")
    if "ceph" in parts and not fsid:
        found.append(f"{host}: s3_snapshot_ceph_fsid is empty. Set it to ceph_fsid")
    if "ceph" in parts and buckets and not gateway:
        found.append(f"{host}: s3_snapshot_ceph_gateway is empty, and buckets are declared. Set its endpoint")
    return found


def parts_of(
    parts: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, Mapping[str, str]],
    schedule: Mapping[str, str],
    drill_days: int,
) -> dict[str, dict[str, Any]]:
    """The configuration of each part of a host, as the tool reads it."""
    found = {}
    for part in parts:
        given = dict(options[part])
        cron = given.pop("source_cron", "")
        found[part] = {
            "source_timers": [],
            "source_calendars": [calendar_from_cron(cron)] if cron else [],
            "calendar": schedule[part],
            "drill_days": drill_days if part in DRILLED else 0,
            "access_key": keys[part]["access_key"],
            "secret_key": keys[part]["secret_key"],
            **given,
        }
    return found


def timers(schedule: Mapping[str, str], parts: Sequence[str]) -> list[dict[str, Any]]:
    """Units of the module configuration: a timer for each part of the host, and none for the others."""
    found: list[dict[str, Any]] = []
    for part in SAVED_PARTS:
        timer = f"slipway-snapshot-{part}.timer"
        path = f"/etc/systemd/system/{timer}"
        if part in parts:
            content = TIMER.format(part=part, calendar=schedule[part])
            found.append(
                {"name": part, "service": timer, "on_change": "restart", "files": [{"path": path, "content": content}]}
            )
        else:
            enabled = f"/etc/systemd/system/timers.target.wants/{timer}"
            files = [{"path": enabled, "state": "absent"}, {"path": path, "state": "absent"}]
            found.append({"name": part, "files": files, "commands": [["systemctl", "stop", timer]]})
    return found


def prefixes(writers: Mapping[str, str]) -> dict[str, list[str]]:
    """Writer → the prefixes that it may use: those of its parts, and of their manifests."""
    found: dict[str, list[str]] = {}
    for part, writer in writers.items():
        if not re.fullmatch(r"[a-z]+", part):
            raise AnsibleFilterError(f"platform_object_storage_writers has the part {part!r}. Use lower case letters")
        found.setdefault(writer, []).extend([f"{part}/", f"manifests/{part}/"])
    return found


def expected(
    servers: Sequence[str],
    databases: Sequence[str],
    storage: Sequence[str],
    buckets: Sequence[Mapping[str, Any]],
    images: Sequence[str],
) -> list[dict[str, str]]:
    """The series of snapshots that an environment has to have, for the module snapshot_list."""
    found = [{"part": part, "host": server} for part in ("etcd", "config") for server in servers]
    found += [{"part": "postgresql"}] if databases else []
    names = ["monitor", *(f"bucket-{bucket['name']}" for bucket in buckets)]
    names += [f"image-{image.replace('/', '-')}" for image in images]
    return found + [{"part": "ceph", "prefix": f"ceph/{name}-"} for name in names if storage]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "snapshot_faults": faults,
            "snapshot_parts": parts_of,
            "snapshot_timers": timers,
            "snapshot_prefixes": prefixes,
            "snapshot_expected": expected,
            "snapshot_restore_report": restore_report,
        }
