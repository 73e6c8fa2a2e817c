"""Paths of RKE2 in its data directory and in /etc/rancher."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

KUBECONFIG = Path("/etc/rancher/rke2/rke2.yaml")
NODE_PASSWORD = Path("/etc/rancher/node/password")


@dataclass(frozen=True, slots=True)
class Layout:
    data: Path

    @property
    def server(self) -> Path:
        return self.data / "server"

    @property
    def agent(self) -> Path:
        return self.data / "agent"

    @property
    def tls(self) -> Path:
        return self.server / "tls"

    @property
    def etcd_tls(self) -> Path:
        return self.tls / "etcd"

    @property
    def db(self) -> Path:
        return self.server / "db"

    @property
    def etcd_dir(self) -> Path:
        return self.db / "etcd"

    @property
    def etcd_name(self) -> Path:
        return self.etcd_dir / "name"

    @property
    def reset_flag(self) -> Path:
        return self.db / "reset-flag"

    @property
    def encryption(self) -> Path:
        return self.server / "cred" / "encryption-config.json"

    @property
    def token(self) -> Path:
        return self.server / "token"

    @property
    def manifests(self) -> Path:
        return self.server / "manifests"

    @property
    def bin(self) -> Path:
        return self.data / "bin"

    @property
    def logs(self) -> Path:
        return self.agent / "logs"

    @property
    def images(self) -> Path:
        return self.agent / "images"

    @property
    def pod_manifests(self) -> Path:
        return self.agent / "pod-manifests"

    @property
    def load_balancer(self) -> Path:
        return self.agent / "etc" / "rke2-agent-load-balancer.json"

    def bootstrap_files(self) -> dict[str, Path]:
        """Files that are identical on all servers: stored in etcd, encrypted with the token, and served on 9345."""
        cas = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
        names = [f"{ca}.{end}" for ca in cas for end in ("crt", "key")] + ["service.key"]
        return {**{name: self.tls / name for name in names}, "encryption-config.json": self.encryption}


@dataclass(frozen=True, slots=True)
class Release:
    """Version of this build of the simulation."""

    version: str
    commit: str
    images: dict[str, str]
    """Program → name of its image in the release's archives."""

    @classmethod
    def load(cls, text: str) -> Release:
        content = json.loads(text)
        return cls(content["version"], content["commit"], content["images"])

    @property
    def tag(self) -> str:
        return self.version.replace("+", "-")


def default_address() -> str:
    """The address of the interface with the default route (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
