"""Parse the output of `rke2 etcd-snapshot`, and find a new snapshot in it."""

from __future__ import annotations

import json
import re
from typing import Any

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parse_quantity(quantity: int | str) -> int:
    """Bytes of a Kubernetes quantity; only the suffixes that file sizes use."""
    match = re.match(r"^(\d+(?:\.\d+)?)(|k|M|G|Ki|Mi|Gi)$", str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a size")
    return int(float(match.group(1)) * UNITS[match.group(2)])


def parse_list(text: str) -> list[dict[str, Any]]:
    """Name, node, location, size in bytes and readiness of each snapshot.

    RKE2 prints a list of ETCDSnapshotFile objects; releases before 1.28 printed a plain array.
    """
    response = json.loads(text) if text.strip() else []
    items = response.get("items") or [] if isinstance(response, dict) else response or []
    found = []
    for item in items:
        spec, status = item.get("spec", item), item.get("status", item)
        found.append(
            {
                "name": spec.get("snapshotName") or item.get("name", ""),
                "node": spec.get("nodeName", ""),
                "location": spec.get("location", ""),
                "size": parse_quantity(status.get("size") or 0),
                "ready": status.get("readyToUse", True) is not False and not status.get("error"),
            }
        )
    return found


def find_new(before: list[dict[str, Any]], after: list[dict[str, Any]], prefix: str, node: str) -> dict[str, Any]:
    """The snapshot that was just saved on this node; ValueError holds the reason why there is no usable one."""
    known = {(entry["name"], entry["location"]) for entry in before}
    new = [
        entry
        for entry in after
        if (entry["name"], entry["location"]) not in known
        and entry["name"].startswith(f"{prefix}-")
        and entry["node"] in (node, "")
        and not entry["location"].startswith("s3://")
    ]
    if not new:
        raise ValueError("rke2 etcd-snapshot save succeeded, but the list of snapshots has no new entry")
    newest = max(new, key=lambda entry: str(entry["name"]))
    if newest["size"] <= 0 or not newest["ready"]:
        raise ValueError(f"snapshot {newest['name']} is not usable: {newest['size']} bytes, ready {newest['ready']}")
    return newest


def upload_fault(snapshot: dict[str, Any], after: list[dict[str, Any]], bucket: str) -> str:
    """Why the new snapshot is not usable in the bucket, or an empty text. RKE2 exits with 0 when an upload fails."""
    name, prefix = snapshot["name"], f"s3://{bucket}/"
    uploaded = [entry for entry in after if entry["name"] == name and entry["location"].startswith(prefix)]
    if not uploaded or not uploaded[0]["ready"]:
        return f"snapshot {name} is not in bucket {bucket}"
    if uploaded[0]["size"] != snapshot["size"]:
        return (
            f"snapshot {name} has {uploaded[0]['size']} bytes in bucket {bucket} and {snapshot['size']} on the server"
        )
    return ""


def upload_error(log: str) -> str:
    """The last line of a log of RKE2 that reports a failed upload to S3, or an empty text."""
    lines = [line.strip() for line in log.splitlines() if re.search(r"level=(?:error|warning|fatal)", line)]
    return next((line for line in reversed(lines) if "s3" in line.lower()), "")
