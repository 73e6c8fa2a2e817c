"""helm-controller, a part of RKE2's process there and a child process here: applies HelmCharts by helm's jobs."""

from __future__ import annotations

from .config import Config
from .control_plane import kubeconfig
from .layout import Layout, Release
from .processes import Child
from .staticpods import arguments


def controller(config: Config, layout: Layout, release: Release, node: str) -> Child:
    """The controller of this server; a lease in kube-system selects the server whose controller works."""
    tls = layout.tls
    path = kubeconfig(layout.server / "cred" / "supervisor.kubeconfig", "https://127.0.0.1:6443", tls / "server-ca.crt",
                      tls / "client-supervisor.crt", tls / "client-supervisor.key")  # fmt: skip
    flags = {
        "default-job-image": config.text("helm-job-image") or release.images["klipper-helm"],
        "kubeconfig": path,
        "node-name": node,
    }
    command = [str(layout.bin / "helm-controller"), *arguments(flags, config.items("helm-controller-arg"))]
    return Child("helm-controller", command, layout.logs / "helm-controller.log")
