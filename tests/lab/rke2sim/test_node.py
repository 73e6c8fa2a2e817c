"""What the simulated RKE2 writes for Kubernetes' own programs: pods, arguments, settings of containerd and kubelet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.rke2sim.runtime import containerd, control_plane, kubelet, packaged
from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.layout import Layout, Release
from lab.rke2sim.runtime.log import Fatal
from lab.rke2sim.runtime.staticpods import StaticPod, arguments

PROGRAMS = ("runtime", "kubernetes", "etcd", "pause", "network", "coredns", "metrics-server", "traefik")
RELEASE = Release("v1.36.3+rke2r1", "simulation-0", {name: f"docker.io/rancher/{name}:1" for name in PROGRAMS})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def server(**values: Any) -> Config:
    return Config("server", {name.replace("_", "-"): value for name, value in values.items()})


def pod(layout: Layout, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((layout.pod_manifests / f"{name}.yaml").read_text())
    return found


def command(layout: Layout, name: str) -> list[str]:
    words: list[str] = pod(layout, name)["spec"]["containers"][0]["command"]
    return words


# --- arguments --------------------------------------------------------------------------------------------------------


def test_a_given_argument_replaces_the_default_and_may_be_repeated() -> None:
    defaults = {"profiling": False, "v": 2, "empty": "", "none": None}
    assert arguments(defaults, ["v=4", "--feature-gates=A=true", "feature-gates=B=true", "flag"]) == [
        "--feature-gates=A=true",
        "--feature-gates=B=true",
        "--flag",
        "--profiling=false",
        "--v=4",
    ]


def test_arguments_of_the_user_reach_the_api_server(layout: Layout) -> None:
    config = server(kube_apiserver_arg=["audit-log-maxage=7", "event-ttl=2h"], service_cidr=["10.99.0.0/16"],
                    pod_security_admission_config_file="/etc/rancher/rke2/pod-security.yaml")  # fmt: skip
    asyncio.run(control_plane.write_apiserver(config, layout, RELEASE, "10.0.0.1"))
    words = command(layout, "kube-apiserver")
    expected = {"--audit-log-maxage=7", "--event-ttl=2h", "--service-cluster-ip-range=10.99.0.0/16",
                "--advertise-address=10.0.0.1", "--anonymous-auth=false"}  # fmt: skip
    assert expected <= set(words)
    mounted = {mount["mountPath"] for mount in pod(layout, "kube-apiserver")["spec"]["containers"][0]["volumeMounts"]}
    assert {str(layout.server), "/etc/rancher/rke2/pod-security.yaml"} <= mounted


# --- static pods ------------------------------------------------------------------------------------------------------


def test_a_pod_is_written_again_only_when_something_changed(layout: Layout, tmp_path: Path) -> None:
    watched = tmp_path / "tls.crt"
    watched.write_text("one")
    static = StaticPod("etcd", layout, RELEASE)
    assert static.write(["etcd"], watched=[watched])
    assert not static.write(["etcd"], watched=[watched])
    watched.write_text("two")
    assert static.write(["etcd"], watched=[watched])
    newer = Release("v1.36.4+rke2r1", "simulation-1", RELEASE.images)
    assert StaticPod("etcd", layout, newer).write(["etcd"], watched=[watched])


def test_kube_proxy_is_removed_where_it_is_disabled(layout: Layout) -> None:
    critical = {"disable-kube-proxy": "false", "cluster-cidr": "10.42.0.0/16"}
    control_plane.write_kube_proxy(server(), layout, RELEASE, "node-1", {"critical": critical})
    assert "--hostname-override=node-1" in command(layout, "kube-proxy")
    critical["disable-kube-proxy"] = "true"
    control_plane.write_kube_proxy(server(), layout, RELEASE, "node-1", {"critical": critical})
    assert not (layout.pod_manifests / "kube-proxy.yaml").exists()


# --- kubelet and containerd -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["node-role.kubernetes.io/worker=true", "kubernetes.io/purpose=x", "scheduling.k8s.io/x=y"]
)
def test_a_label_that_a_kubelet_must_not_set_ends_the_start(label: str) -> None:
    with pytest.raises(Fatal, match=r"unknown 'kubernetes\.io' or 'k8s\.io' label"):
        kubelet.allowed_labels([label])


def test_other_labels_are_given_to_the_kubelet(layout: Layout) -> None:
    labels = ["zone=a", "topology.kubernetes.io/zone=fsn1", "node.kubernetes.io/instance-type=cx23"]
    critical = {"cluster-dns": "10.43.0.10", "cluster-domain": "cluster.local"}
    config = server(node_label=labels, kubelet_arg=["max-pods=50"])
    child = kubelet.prepare(config, layout, "node-1", ["10.0.0.1"], {"critical": critical})
    assert next(word for word in child.command if word.startswith("--node-labels=")).endswith(",".join(labels))
    assert "--max-pods=50" in child.command
    defaults = yaml.safe_load((layout.agent / "etc/kubelet.conf.d/00-rke2-defaults.conf").read_text())
    assert defaults["clusterDNS"] == ["10.43.0.10"]


def test_mirrors_become_hosts_of_containerd(layout: Layout, tmp_path: Path) -> None:
    registries = tmp_path / "registries.yaml"
    registries.write_text(
        "mirrors: {docker.io: {endpoint: ['https://mirror.test:5000']}, '*': {}}\n"
        "configs: {'mirror.test:5000': {tls: {ca_file: /etc/ca.crt}}}\n"
    )
    containerd.configure(server(private_registry=str(registries)), layout, RELEASE)
    folder = layout.agent / "etc/containerd/certs.d"
    hosts = (folder / "docker.io/hosts.toml").read_text()
    assert '[host."https://mirror.test:5000/v2"]' in hosts
    assert 'ca = ["/etc/ca.crt"]' in hosts
    assert (folder / "_default/hosts.toml").exists()
    text = (layout.agent / "etc/containerd/config.toml").read_text()
    assert f'imports = ["{layout.agent}/etc/containerd/config-v3.toml.d/*.toml"]' in text


# --- packaged components ----------------------------------------------------------------------------------------------


def test_disabled_components_are_removed(layout: Layout) -> None:
    layout.manifests.mkdir(parents=True)
    packaged.write_manifests(server(), layout, RELEASE)
    assert sorted(path.stem for path in layout.manifests.iterdir()) == sorted(packaged.NAMES)
    config = server(disable=["rke2-metrics-server"], cni=["none"], ingress_controller=["none"])
    packaged.write_manifests(config, layout, RELEASE)
    assert [path.stem for path in layout.manifests.iterdir()] == ["rke2-coredns"]


def test_components_use_the_addresses_of_the_cluster(layout: Layout) -> None:
    layout.manifests.mkdir(parents=True)
    config = server(cluster_cidr=["10.52.0.0/16"], service_cidr=["10.53.0.0/16"], cluster_dns=["10.53.0.9"])
    packaged.write_manifests(config, layout, RELEASE)
    dns = list(yaml.safe_load_all((layout.manifests / "rke2-coredns.yaml").read_text()))
    corefile = next(item for item in dns if item["kind"] == "ConfigMap")["data"]["Corefile"]
    assert "kubernetes cluster.local 53.10.in-addr.arpa {" in corefile
    assert next(item for item in dns if item["kind"] == "Service")["spec"]["clusterIP"] == "10.53.0.9"
    network = (layout.manifests / "rke2-canal.yaml").read_text()
    assert "10.52.0.0/16" in network
    assert "--service-cidr=10.53.0.0/16" in network
