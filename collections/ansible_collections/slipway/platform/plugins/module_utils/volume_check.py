"""The objects of a check of Kubernetes volumes, and what is read from them. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "slipway-volume-check"
SMALL, LARGE = "1Gi", "2Gi"
FILE = "/data/probe"
SNAPSHOTS = "snapshot.storage.k8s.io/v1"
Json = dict[str, Any]


def metadata(name: str) -> Json:
    return {"name": name, "namespace": NAMESPACE}


def namespace() -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def claim(name: str, storage_class: str, size: str = SMALL, snapshot: str = "") -> Json:
    """A PersistentVolumeClaim, with the content of a snapshot."""
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }
    if snapshot:
        spec["dataSource"] = {"apiGroup": SNAPSHOTS.partition("/")[0], "kind": "VolumeSnapshot", "name": snapshot}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(name), "spec": spec}


def snapshot(name: str, snapshot_class: str, source: str) -> Json:
    spec = {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": source}}
    return {"apiVersion": SNAPSHOTS, "kind": "VolumeSnapshot", "metadata": metadata(name), "spec": spec}


def pod(name: str, image: str, claim_name: str, script: str) -> Json:
    """A pod that runs a script with the volume in /data, within the restricted pod security standard."""
    container = {
        "name": "check",
        "image": image,
        "command": ["sh", "-ec", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name),
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}],
        },
    }  # fmt: skip


def write_script(text: str) -> str:
    return f"echo {text} >{FILE}; sync"


def read_script(text: str) -> str:
    return f'test "$(cat {FILE})" = {text}'


# Conditions: what is unmet of an object, in words; nothing when it is as wanted.


def unbound(item: Mapping[str, Any] | None, size: str = SMALL) -> list[str]:
    status = (item or {}).get("status") or {}
    if status.get("phase") != "Bound":
        return [f"is {status.get('phase') or 'missing'}, not Bound"]
    capacity = (status.get("capacity") or {}).get("storage", "")
    return [] if gibibytes(capacity) >= gibibytes(size) else [f"has {capacity}, not {size}"]


def unready(item: Mapping[str, Any] | None) -> list[str]:
    status = (item or {}).get("status") or {}
    error = (status.get("error") or {}).get("message", "")
    return [] if status.get("readyToUse") else [f"is not ready to use{f' ({error})' if error else ''}"]


def unfinished(item: Mapping[str, Any] | None) -> list[str]:
    phase = ((item or {}).get("status") or {}).get("phase") or "missing"
    return [] if phase == "Succeeded" else [f"is {phase}, not Succeeded"]


def gibibytes(text: str) -> float:
    """`1Gi`, `1024Mi` and plain bytes; no size is none."""
    for unit, factor in (("Gi", 1.0), ("Mi", 2.0**-10), ("Ki", 2.0**-20), ("", 2.0**-30)):
        if text.endswith(unit) and text.removesuffix(unit).isdecimal():
            return int(text.removesuffix(unit)) * factor
    return 0.0
