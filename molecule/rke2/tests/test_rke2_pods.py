"""The pods of a cluster, through its own kubectl: components, services, name resolution, metrics, and ports of pods."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory
from tests.support.probe import PROBE

KUBECTL = "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml"
NODE_PORT = 30080

RESOLVE = """
import socket, sys
name = b"".join(bytes([len(part)]) + part for part in sys.argv[2].encode().split(b".")) + b"\\0"
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.settimeout(5)
channel.sendto(b"\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0" + name + b"\\0\\x01\\0\\x01", (sys.argv[1], 53))
print(socket.inet_ntoa(channel.recv(512)[-4:]))
"""
"""The last address of a DNS answer; hosts have no client that takes a server."""


@pytest.fixture
def server(inventory: Inventory) -> Host:
    return inventory.host(inventory.group("rke2_server")[0])


def kubectl(host: Host, command: str) -> str:
    with host.sudo():
        return str(host.check_output(f"{KUBECTL} {command}"))


def read(host: Host, command: str) -> Any:
    return json.loads(kubectl(host, f"{command} --output json"))


def test_every_pod_of_the_system_becomes_ready(server: Host, inventory: Inventory) -> None:
    def unready() -> list[str]:
        pods = read(server, "get pods --namespace kube-system --field-selector status.phase!=Succeeded")["items"]
        ready = {
            pod["metadata"]["name"]: any(
                entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", [])
            )
            for pod in pods
        }
        expected = [f"{pod}-{name}" for name in inventory.group("rke2_server") for pod in ("etcd", "kube-apiserver",
                    "kube-controller-manager", "kube-scheduler", "kube-proxy")]  # fmt: skip
        missing = [name for name in expected if name not in ready]
        return missing + [name for name, is_ready in ready.items() if not is_ready]

    until(unready, 120, lambda names: not names)


def test_a_program_runs_in_a_pod_and_its_log_is_read(server: Host) -> None:
    node = server.check_output("hostname")
    assert "etcd Version" in kubectl(server, f"exec --namespace kube-system etcd-{node} -- etcd --version")
    assert kubectl(server, f"logs --namespace kube-system --tail 1 kube-scheduler-{node}")


def test_the_cluster_resolves_its_names(server: Host, inventory: Inventory) -> None:
    """Through kube-proxy and the pod network, from a host."""
    servers = read(server, "get service kubernetes")["spec"]["clusterIP"]
    resolver = read(server, "get service --namespace kube-system --selector k8s-app=kube-dns")["items"][0]
    address = resolver["spec"]["clusterIP"]
    for name in (*inventory.group("rke2_server"), *inventory.group("rke2_agent")):
        answer = inventory.host(name).check_output(
            "python3 -c %s %s kubernetes.default.svc.cluster.local", RESOLVE, address
        )
        assert (name, answer) == (name, servers)


def test_metrics_of_every_node_are_served(server: Host, inventory: Inventory) -> None:
    expected = sorted(inventory.group("rke2_server") + inventory.group("rke2_agent"))

    def measured() -> list[str]:
        path = "get --raw /apis/metrics.k8s.io/v1beta1/nodes"
        with server.sudo():
            shown = server.run(f"{KUBECTL} {path}")
        return sorted(item["metadata"]["name"] for item in json.loads(shown.stdout)["items"]) if shown.rc == 0 else []

    until(measured, 90, lambda names: names == expected)


def test_ports_of_pods_are_filtered_as_the_host_s_own(server: Host, inventory: Inventory) -> None:
    """hostPort and NodePort are redirected before the input chain: both are closed but for the load balancer's 443."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "probe", "namespace": "kube-system"},
        "spec": {
            "type": "NodePort",
            "selector": {"app.kubernetes.io/name": "rke2-traefik"},
            "ports": [{"port": 8000, "targetPort": "web", "nodePort": NODE_PORT}],
        },
    }
    own = inventory.address(inventory.group("rke2_server")[0])

    def answer(name: str, port: int, address: str = own) -> str:
        return inventory.host(name).check_output("python3 -c %s %s %s", PROBE, address, str(port))

    balancer, agent, this = (inventory.group(name)[0] for name in ("load_balancer", "rke2_agent", "rke2_server"))
    with server.sudo():
        server.check_output(f"echo %s | {KUBECTL} apply --filename -", json.dumps(service))
    try:
        until(lambda: answer(this, NODE_PORT), 30, lambda state: state == "open")
        answers = {(name, port): answer(name, port) for name in (balancer, agent) for port in (443, NODE_PORT)}
    finally:
        kubectl(server, "delete service --namespace kube-system probe")
    assert answers == {
        (balancer, 443): "open",
        (balancer, NODE_PORT): "dropped",
        (agent, 443): "dropped",
        (agent, NODE_PORT): "dropped",
    }
