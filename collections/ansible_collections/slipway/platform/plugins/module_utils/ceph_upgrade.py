"""What an upgrade of Ceph needs, and how far it is: reading it, and the plan, which is pure."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.ceph import Cluster

# https://docs.ceph.com/en/latest/releases/: the name of a major is what require_osd_release speaks of.
RELEASES = {17: "quincy", 18: "reef", 19: "squid", 20: "tentacle", 21: "umbrella"}
MOST_MAJORS = 2

# Daemons of the cluster itself; the others follow images of their own.
KINDS = ("mgr", "mon", "crash", "osd", "mds", "rgw", "rbd-mirror", "cephfs-mirror", "ceph-exporter", "nfs")

QUESTIONS = [["versions"], ["osd", "dump"], ["mgr", "dump"]]


def parse_version(text: str) -> tuple[int, int, int]:
    """20.2.4 -> (20, 2, 4); also out of "ceph version 20.2.4-1 (…) tentacle (stable)"."""
    found = re.search(r"(?:^|\s)(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} is no version of Ceph; write it in full, like 20.2.4")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


def digest_of(image: str) -> str:
    """The sha256:… of an image named by digest, else nothing."""
    return image.rpartition("@")[2] if "@sha256:" in image else ""


def read(cluster: Cluster) -> dict[str, Any]:
    versions, osds, managers = cluster.batch(QUESTIONS)
    more = [["orch", "upgrade", "status"], ["orch", "ps"]]
    status_answer, daemons_answer = cluster.ask(more, json_wanted=True)
    # Without an upgrade the answer is a sentence, whatever was asked for.
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
    """Daemons that do not run the image yet."""
    return sorted(name for name, digests in view["daemons"].items() if digest_of(image) not in digests)


def faults(view: dict[str, Any], image: str, version: str, floors: list[str]) -> list[str]:
    """Why this upgrade must not begin, one sentence each."""
    found: list[str] = []
    want = parse_version(version)
    least = {parse_version(floor)[0]: parse_version(floor) for floor in floors}.get(want[0])
    running = sorted({parse_version(text) for texts in view["versions"].values() for text in texts})
    if least is None or want < least:
        found.append(
            f"The version wanted is {version}; only {' or '.join(floors)} and newer of the same major let nobody "
            "in by the door of CVE-2025-30156. Name an image of such a version."
        )
    if running and want < running[-1]:
        found.append(
            f"{_text(running[-1])} runs and {version} is wanted: Ceph cannot go back. "
            f"Name an image of {_text(running[-1])} or newer."
        )
    if running and want[0] > running[0][0] + MOST_MAJORS:
        between = running[0][0] + MOST_MAJORS
        found.append(
            f"{_text(running[0])} runs and {version} is wanted: at most {MOST_MAJORS} major versions may be taken at "
            f"once. Upgrade to the newest {between} ({RELEASES.get(between, 'its release')}) first."
        )
    if view["in_progress"] and digest_of(view["target"]) != digest_of(image):
        found.append(
            f"An upgrade to {view['target']} is under way. Finish it by naming that image, or end it with "
            "ceph orch upgrade stop."
        )
    if view["standbys"] < 1 and not view["in_progress"]:
        found.append(
            "No manager stands by, so the active one could not be replaced. Bring back the second manager first."
        )
    return found


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def action(view: dict[str, Any], image: str) -> str:
    """start, resume, follow or none: what takes this cluster to the image from where it stands."""
    if view["in_progress"]:
        return "resume" if view["paused"] else "follow"
    return "start" if behind(view, image) else "none"


def halted(view: dict[str, Any]) -> str:
    """Why an upgrade that has begun does not go on by itself, or nothing."""
    if view["in_progress"] and view["message"].startswith("Error:"):
        return str(view["message"])
    if view["in_progress"] and view["paused"]:
        return "it was paused"
    return ""


def summary(view: dict[str, Any], image: str) -> str:
    """How far it is, in one line."""
    left = behind(view, image)
    done = f"{len(view['daemons']) - len(left)} of {len(view['daemons'])} daemons run the image"
    if not view["in_progress"]:
        return done
    parts = [done, view["message"] or view["progress"]]
    return "; ".join(part for part in parts if part)


def unfinished(view: dict[str, Any], image: str, version: str) -> list[str]:
    """What still differs when Ceph says that it is done."""
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
