"""The static pods of a node, with RKE2's names, labels and commands: files that the kubelet runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .layout import Layout, Release
from .pki import write
from .processes import find
from .resources import Obj

RESOURCES = {
    "etcd": ("200m", "512Mi"),
    "kube-apiserver": ("250m", "1Gi"),
    "kube-controller-manager": ("200m", "256Mi"),
    "kube-scheduler": ("100m", "128Mi"),
    "kube-proxy": ("250m", "128Mi"),
}
PRIORITY = {"kube-proxy": "system-node-critical"}


def arguments(defaults: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Flags of a component: RKE2's, replaced and extended by the user's `name=value`; a flag may be given twice."""
    texts: dict[str, list[str]] = {}
    for name, value in defaults.items():
        if value is not None and value != "":
            texts[name] = [str(value).lower() if isinstance(value, bool) else str(value)]
    replaced: set[str] = set()
    for item in given:
        name, _, value = item.removeprefix("--").partition("=")
        if name not in replaced:
            texts[name] = []
            replaced.add(name)
        texts[name].append(value)
    return [f"--{name}={value}" if value else f"--{name}" for name in sorted(texts) for value in texts[name]]


def probe(port: int, path: str, scheme: str, **timing: int) -> Obj:
    check = {"path": path, "port": port, "scheme": scheme, "host": "127.0.0.1"}
    return {"httpGet": check, "timeoutSeconds": 15, **timing}


STARTUP = {"initialDelaySeconds": 5, "periodSeconds": 5, "failureThreshold": 48}
LIVENESS = {"initialDelaySeconds": 10, "periodSeconds": 10, "failureThreshold": 8}


def files_hash(paths: Sequence[Path], settings: Obj | None = None) -> str:
    """Changes of these files make a new pod, as in RKE2."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        if path.is_file():
            digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class StaticPod:
    def __init__(self, name: str, layout: Layout, release: Release) -> None:
        self.name = name
        self.release = release
        self.path = layout.pod_manifests / f"{name}.yaml"
        self.previous_pid = 0
        """The process that a changed manifest replaces."""

    def write(
        self,
        command: Sequence[str],
        *,
        folders: Sequence[Path] = (),
        files: Sequence[Path] = (),
        watched: Sequence[Path] = (),
        settings: Obj | None = None,
        probes: Mapping[str, Obj] | None = None,
        security: Obj | None = None,
        privileged: bool = False,
    ) -> bool:
        """Write the manifest; False when it is the same, and the pod keeps running."""
        cpu, memory = RESOURCES[self.name]
        mounts: list[Obj] = []
        volumes: list[Obj] = []
        for kind, paths in (("DirectoryOrCreate", folders), ("File", files)):
            for path in paths:
                label = f"{'dir' if kind != 'File' else 'file'}{len(volumes)}"
                mounts.append({"name": label, "mountPath": str(path), "readOnly": kind == "File"})
                volumes.append({"name": label, "hostPath": {"path": str(path), "type": kind}})
        container: Obj = {
            "name": self.name,
            "image": self.release.images["etcd" if self.name == "etcd" else "kubernetes"],
            "imagePullPolicy": "IfNotPresent",
            "command": list(command),
            "env": [{"name": "FILE_HASH", "value": files_hash([*files, *watched], settings)}],
            "resources": {"requests": {"cpu": cpu, "memory": memory}},
            "volumeMounts": mounts,
            "securityContext": {"privileged": privileged},
            **(probes or {}),
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": "kube-system",
                "labels": {"component": self.name, "tier": "control-plane"},
                # Restarted with the release, even where nothing else changes.
                "annotations": {"slipway.dev/release": self.release.version},
            },
            "spec": {
                "hostNetwork": True,
                "priorityClassName": PRIORITY.get(self.name, "system-cluster-critical"),
                "securityContext": security or {},
                "containers": [container],
                "volumes": volumes,
            },
        }
        text = yaml.safe_dump(json.loads(json.dumps(pod)), sort_keys=False)  # without YAML's anchors
        if self.path.exists():
            if self.path.read_text() == text:
                return False
            self.previous_pid = find(self.name)
        write(self.path, text)
        return True

    async def wait_replaced(self) -> None:
        """Wait without a limit until the kubelet has replaced the process; until then the previous one may answer."""
        while self.previous_pid and find(self.name) in (0, self.previous_pid):
            await asyncio.sleep(0.3)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
