"""The kubelet of a node: RKE2's defaults, the user's arguments, and the node's identity."""

from __future__ import annotations

from typing import Any

import yaml

from .config import Config
from .containerd import SOCKET, cgroup_driver
from .control_plane import kubeconfig
from .layout import Layout
from .log import Fatal
from .pki import write
from .processes import Child
from .resources import Obj
from .staticpods import arguments

API_PORT = 6443
"""Port of the API on 127.0.0.1: the API server on servers, a load balancer of the servers on agents."""
SERVER_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd")


def allowed_labels(labels: list[str]) -> list[str]:
    """The user's labels; those that a kubelet must not set on its own node end the start, as they end the kubelet."""
    own = ("kubelet.kubernetes.io", "node.kubernetes.io")
    known = ("beta.kubernetes.io/arch", "beta.kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/os",
             "kubernetes.io/hostname", "beta.kubernetes.io/instance-type", "failure-domain.beta.kubernetes.io/region",
             "failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/region",
             "topology.kubernetes.io/zone")  # fmt: skip
    for label in labels:
        key = label.partition("=")[0]
        prefix = key.rpartition("/")[0]
        reserved = prefix.endswith((".kubernetes.io", ".k8s.io")) or prefix in ("kubernetes.io", "k8s.io")
        if reserved and key not in known and not any(prefix == name or prefix.endswith(f".{name}") for name in own):
            raise Fatal(
                f"failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' label in --node-labels: {key}"
            )
    return labels


def defaults(config: Config, layout: Layout, cluster: Obj) -> Obj:
    agent, critical = layout.agent, cluster["critical"]
    resolv = config.text("resolv-conf") or "/etc/resolv.conf"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(agent / "client-ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": cgroup_driver(),
        "clusterDNS": critical["cluster-dns"].split(","),
        "clusterDomain": critical["cluster-domain"],
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "evictionHard": {"imagefs.available": "5%", "nodefs.available": "5%"},
        "evictionMinimumReclaim": {"imagefs.available": "10%", "nodefs.available": "10%"},
        "failSwapOn": False,
        "healthzBindAddress": "127.0.0.1",
        "protectKernelDefaults": config.flag("protect-kernel-defaults") or config.text("profile") == "cis",
        "resolvConf": resolv,
        "rotateCertificates": True,
        "serializeImagePulls": False,
        "staticPodPath": str(layout.pod_manifests),
        "tlsCertFile": str(agent / "serving-kubelet.crt"),
        "tlsPrivateKeyFile": str(agent / "serving-kubelet.key"),
    }


def prepare(config: Config, layout: Layout, name: str, addresses: list[str], cluster: Obj) -> Child:
    """Write the kubelet's configuration and return its process, not started yet."""
    agent = layout.agent
    folder = agent / "etc" / "kubelet.conf.d"
    write(folder / "00-rke2-defaults.conf", yaml.safe_dump(defaults(config, layout, cluster), sort_keys=False))
    layout.pod_manifests.mkdir(parents=True, exist_ok=True)
    path = kubeconfig(agent / "kubelet.kubeconfig", f"https://127.0.0.1:{API_PORT}", agent / "server-ca.crt",
                      agent / "client-kubelet.crt", agent / "client-kubelet.key")  # fmt: skip
    labels = ["node.kubernetes.io/instance-type=rke2"] if not config.flag("disable-cloud-controller") else []
    flags: dict[str, Any] = {
        "config-dir": folder,
        "hostname-override": name,
        "kubeconfig": path,
        "node-ip": ",".join(addresses),
        "node-labels": ",".join([*labels, *allowed_labels(config.items("node-label"))]),
        "register-with-taints": ",".join(config.items("node-taint")),
    }
    command = [str(layout.bin / "kubelet"), *arguments(flags, config.items("kubelet-arg"))]
    return Child("kubelet", command, layout.logs / "kubelet.log")
