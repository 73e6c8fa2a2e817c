"""Composes the images of a release from the programs of Go modules and of Debian, under RKE2's names."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.kubernetes import build
from lab.kubernetes.images import Image, Layer, Link, files_tar, store_layer
from lab.machines import builds, images

ARCHIVE = "rke2-images-core.linux-amd64.tar"
"""RKE2 publishes it as .tar.zst and .tar.gz, and reads a plain one too; the layers in it are compressed already."""
SUITE = "trixie"
PACKAGES = ("ca-certificates", "conntrack", "ipset", "iptables", "iproute2", "kmod", "openssl", "python3")
"""What the programs of the pods call; one base for all images that call anything."""
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl")
RUNTIME = ("containerd", "containerd-shim-runc-v2", "ctr", "helm-controller")
PLUGINS = ("bridge", "host-local", "portmap")
PAUSE = "3.10.2"

Progress = Callable[[str], None]


def image_names(version: str, etcd_version: str) -> dict[str, str]:
    """Program → image name, in RKE2's form; `lab` in place of the date of RKE2's own build."""

    def name(image: str, tag: str) -> str:
        return f"docker.io/rancher/{image}:{tag}"

    release = version.replace("+", "-")
    flannel = build.module_version("github.com/flannel-io/flannel")
    coredns = build.module_version("github.com/coredns/coredns")
    metrics = build.module_version("sigs.k8s.io/metrics-server")
    helm = build.module_version("helm.sh/helm/v3")
    return {
        "runtime": name("rke2-runtime", release),
        "kubernetes": name("hardened-kubernetes", f"{release}-lab"),
        "etcd": name("hardened-etcd", f"v{etcd_version}-lab"),
        "pause": name("mirrored-pause", f"{PAUSE}-lab"),
        "network": name("hardened-flannel", f"{flannel}-lab"),
        "coredns": name("hardened-coredns", f"{coredns}-lab"),
        "metrics-server": name("hardened-k8s-metrics-server", f"{metrics}-lab"),
        "klipper-helm": name("klipper-helm", f"helm-{helm}-lab"),
        # Not the release's version: during an upgrade, nodes that are not restarted yet have no new images.
        "traefik": name("hardened-traefik", "v3-simulation"),
    }


def base(cache: Path, progress: Progress) -> Layer:
    """Debian with the programs that iptables modes, probes and the ingress call; made once."""
    recipe = json.dumps([SUITE, PACKAGES, images.PATHS_EXCLUDED])
    mark = cache / f"base-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.json"
    if mark.exists():
        known = json.loads(mark.read_text())
        return Layer(cache / known["file"], known["digest"], known["diff_id"])
    cache.mkdir(parents=True, exist_ok=True)
    with builds.work_folder(cache / "base") as work:
        target = work / "base.tar"
        sources = work / "debian.sources"
        sources.write_text(images.debian_sources(SUITE))
        argv = [
            "mmdebstrap", "--mode=root", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}",
            "--dpkgopt=force-unsafe-io", images.exclusion_hook(work, images.PATHS_EXCLUDED),
            *(f"--aptopt={key} {images.quote(value)}" for key, value in images.machine_apt_options().items()),
            SUITE, str(target), *([str(sources)] if sources.stat().st_size else []),
        ]  # fmt: skip
        images.run_with_progress(
            argv, "Kubernetes images", work, lambda text, share: progress(f"images of Kubernetes: {text} ({share:.0%})")
        )
        layer = store_layer(cache, without_devices(target))
    mark.write_text(json.dumps({"file": layer.path.name, "digest": layer.digest, "diff_id": layer.diff_id}))
    return layer


def without_devices(path: Path) -> bytes:
    """The tar without device nodes, which a container gets from its runtime."""
    buffer = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            if not member.isdev():
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()


def compose(
    version: str,
    programs: Path,
    debian: Path,
    simulation: dict[str, bytes],
    etcd_version: str,
    cache: Path,
    progress: Progress,
) -> list[Image]:
    """All images of a release. `debian` has etcd and runc of Debian, `simulation` the files of the ingress."""
    names = image_names(version, etcd_version)
    debian_layer = base(cache, progress)
    progress(f"packing the images of {version}")
    bin_dir = "usr/local/bin"
    runtime = {f"bin/{name}": programs / name for name in RUNTIME}
    layers: dict[str, dict[str, bytes | Path | Link]] = {
        "runtime": {
            **runtime, "bin/runc": debian / "runc", "bin/kubernetes": programs / "kubernetes",
            "bin/kubelet": Link("kubernetes"), "bin/kubectl": Link("kubernetes"), "charts/": b"",
        },
        "kubernetes": {
            f"{bin_dir}/kubernetes": programs / "kubernetes",
            **{f"{bin_dir}/{name}": Link("kubernetes") for name in COMPONENTS},
        },
        # As in RKE2's image: etcdctl restores snapshots.
        "etcd": {f"{bin_dir}/{name}": debian / name for name in ("etcd", "etcdctl")},
        "pause": {"pause": programs / "pause"},
        "network": {
            f"{bin_dir}/network": programs / "network", f"{bin_dir}/flanneld": Link("network"),
            f"{bin_dir}/network-policies": Link("network"),
            **{f"opt/cni/bin/{name}": programs / name for name in PLUGINS},
        },
        "coredns": {"coredns": programs / "coredns"},
        "metrics-server": {"metrics-server": programs / "metrics-server"},
        "traefik": dict(simulation),
        "klipper-helm": {
            f"{bin_dir}/helm": programs / "helm", f"{bin_dir}/entry": Path(__file__).with_name("helm_job.py"),
            "home/klipper-helm/": b"",
        },
    }  # fmt: skip
    with_base = {"kubernetes", "etcd", "network", "traefik", "klipper-helm"}
    path = {"Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    settings: dict[str, Any] = {
        "pause": {"Entrypoint": ["/pause"]},
        "coredns": {"Entrypoint": ["/coredns"]},
        "metrics-server": {"Entrypoint": ["/metrics-server"]},
        "traefik": {**path, "Entrypoint": ["/usr/local/bin/traefik"]},
        "klipper-helm": {
            "Env": [*path["Env"], "HOME=/home/klipper-helm"],
            "Entrypoint": [f"/{bin_dir}/entry"],
            "User": "1000",
        },
    }
    found = []
    for program, files in layers.items():
        own = store_layer(cache, files_tar(files))
        stack = (debian_layer, own) if program in with_base else (own,)
        found.append(Image(names[program], stack, settings.get(program, path)))
    return found
