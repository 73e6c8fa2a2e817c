"""Preconditions and progress of an upgrade of Ceph: reads, and the pure plan."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# https://docs.ceph.com/en/latest/releases/: require_osd_release has the name of a major release.
RELEASES = {17: "quincy", 18: "reef", 19: "squid", 20: "tentacle", 21: "umbrella"}
MAX_MAJORS_PER_UPGRADE = 2

# Daemon types that run the Ceph image; the others have images of their own.
KINDS = ("mgr", "mon", "crash", "osd", "mds", "rgw", "rbd-mirror", "cephfs-mirror", "ceph-exporter", "nfs")

COMMANDS = [["versions"], ["osd", "dump"], ["mgr", "dump"]]


def parse_version(text: str) -> tuple[int, int, int]:
    """20.2.4 -> (20, 2, 4); also from "ceph version 20.2.4-1 (…) tentacle (stable)"."""
    found = re.search(r"(?:^|\s)(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r}: not a version of Ceph. Give it in full, like 20.2.4")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


def digest_of(image: str) -> str:
    """The digest of an image reference, empty without one."""
    return image.rpartition("@")[2] if "@sha256:" in image else ""


def read(cluster: Cluster) -> dict[str, Any]:
    versions, osds, managers = cluster.batch(COMMANDS)
    more = [["orch", "upgrade", "status"], ["orch", "ps"]]
    status_answer, daemons_answer = cluster.execute(more, json_wanted=True)
    # Without an upgrade the command prints a sentence, even with --format json.
    status = cluster.parsed(more[0], status_answer["output"]) if status_answer["output"].startswith("{") else {}
    daemons = cluster.parsed(more[1], daemons_answer["output"])
    return {
        "versions": {
            kind: sorted(".".join(map(str, parse_version(text))) for text in found)
            for kind, found in versions.items()
            if found
        },
        "release": osds.get("require_osd_release", ""),
        "standbys": len(managers.get("standbys", [])),
        "in_progress": bool(status.get("in_progress")),
        "paused": bool(status.get("is_paused")),
        "target": status.get("target_image") or "",
        "progress": status.get("progress") or "",
        "message": status.get("message") or "",
        "daemons": {
            f"{daemon['daemon_type']}.{daemon['daemon_id']}": sorted(
                {digest_of(name) for name in daemon.get("container_image_digests") or []} - {""}
            )
            for daemon in daemons
            if daemon["daemon_type"] in KINDS
        },
    }


def behind(view: dict[str, Any], image: str) -> list[str]:
    """Daemons that run another image."""
    return sorted(name for name, digests in view["daemons"].items() if digest_of(image) not in digests)


def faults(view: dict[str, Any], image: str, version: str, floors: list[str]) -> list[str]:
    """Why this upgrade must not start, one message each."""
    found: list[str] = []
    want = parse_version(version)
    least = {parse_version(floor)[0]: parse_version(floor) for floor in floors}.get(want[0])
    running = sorted({parse_version(text) for texts in view["versions"].values() for text in texts})
    if least is None or want < least:
        found.append(
            f"op_upgrade_ceph_version: {version} lacks the fix of CVE-2025-30156. Choose an image of "
            f"{' or '.join(floors)}, or of a newer release of the same major."
        )
    if running and want < running[-1]:
        found.append(
            f"op_upgrade_ceph_version: {version} is older than the running {_text(running[-1])}, and Ceph has no "
            f"downgrade. Choose an image of {_text(running[-1])} or newer."
        )
    if running and want[0] > running[0][0] + MAX_MAJORS_PER_UPGRADE:
        between = running[0][0] + MAX_MAJORS_PER_UPGRADE
        found.append(
            f"op_upgrade_ceph_version: {version} is more than {MAX_MAJORS_PER_UPGRADE} major releases newer than the "
            f"running {_text(running[0])}. "
            f"Upgrade to the newest {between} ({RELEASES.get(between, 'its release')}) first."
        )
    if view["in_progress"] and digest_of(view["target"]) != digest_of(image):
        found.append(
            f"op_upgrade_ceph_image: an upgrade to {view['target']} is in progress. Give that image to finish it, or "
            "run ceph orch upgrade stop."
        )
    if view["standbys"] < 1 and not view["in_progress"]:
        found.append("No standby manager, so the active one cannot be upgraded. Start the second manager first.")
    return found


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def action(view: dict[str, Any], image: str) -> str:
    """The next action towards the image: start, resume, follow or none."""
    if view["in_progress"]:
        return "resume" if view["paused"] else "follow"
    return "start" if behind(view, image) else "none"


def halted(view: dict[str, Any]) -> str:
    """Why a started upgrade is stopped, or an empty string."""
    if view["in_progress"] and view["message"].startswith("Error:"):
        return str(view["message"])
    if view["in_progress"] and view["paused"]:
        return "paused"
    return ""


def summary(view: dict[str, Any], image: str) -> str:
    """Progress in one line."""
    left = behind(view, image)
    done = f"{len(view['daemons']) - len(left)} of {len(view['daemons'])} daemons run the image"
    if not view["in_progress"]:
        return done
    parts = [done, view["message"] or view["progress"]]
    return "; ".join(part for part in parts if part)


def unfinished(view: dict[str, Any], image: str, version: str) -> list[str]:
    """Differences from a complete upgrade."""
    found = []
    if left := behind(view, image):
        found.append(f"{', '.join(left)} do not run {image}")
    wanted = _text(parse_version(version))
    for kind, texts in sorted(view["versions"].items()):
        if texts != [wanted] and kind != "overall":
            found.append(f"{kind} runs {', '.join(texts)}, not {wanted}")
    release = RELEASES.get(parse_version(version)[0])
    if release and view["release"] != release:
        found.append(f"require_osd_release is {view['release']}, not {release}")
    return found
