"""The kubelet of a node: its Node and Lease, mirror pods of its processes, and its ingress."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import log
from .api_client import ApiClient, expected
from .config import Config
from .http import background
from .ingress_process import IngressProcess
from .layout import Layout, Release
from .resources import Obj
from .store import now

HEARTBEAT_SECONDS = 10
RETRY_SECONDS = 1
LEASE_SECONDS = 40
NODE_FINALIZER = "wrangler.cattle.io/node"
"""Finalizer of a Node: the servers first remove its node password and its etcd member."""
SERVER_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "cloud-controller-manager")


def micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Kubelet:
    def __init__(
        self,
        config: Config,
        layout: Layout,
        release: Release,
        name: str,
        addresses: list[str],
        api: ApiClient,
        *,
        cluster: Obj,
    ) -> None:
        self.config = config
        self.layout = layout
        self.release = release
        self.name = name
        self.addresses = addresses
        self.api = api
        self.cluster = cluster
        """The cluster settings from the supervisor: cni and ingress."""
        self.is_server = config.role == "server"
        self.voter: Callable[[], bool] | None = None
        self.server_addresses_changed: Callable[[list[str]], None] | None = None
        self.ingress = IngressProcess(layout, name, api)

    async def start(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Register, with retries until the API responds, then start the background tasks."""
        while True:
            try:
                await self.register()
                break
            except (OSError, ValueError) as fault:
                log.error(f"Waiting for the API to register this node: {fault}")
                await asyncio.sleep(RETRY_SECONDS)
        background(tasks, "heartbeat", self.heartbeat(), essential=True)
        if "traefik" in self.cluster["ingress"]:
            background(tasks, "ingress", self.ingress.run(), essential=True)

    # The Node object

    def _labels(self) -> dict[str, str]:
        labels = {
            "beta.kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "slipway.dev/simulation": "true",
        }
        if not self.config.flag("disable-cloud-controller"):
            labels |= {"node.kubernetes.io/instance-type": "rke2", "beta.kubernetes.io/instance-type": "rke2"}
        if self.is_server:
            labels |= {"node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/etcd": "true"}
        for item in self.config.items("node-label"):
            key, _, value = item.partition("=")
            labels[key] = value
        return labels

    def _taints(self) -> list[Obj]:
        taints = []
        for item in self.config.items("node-taint"):
            text, _, effect = item.rpartition(":")
            key, _, value = text.partition("=")
            taints.append({"key": key, "effect": effect, **({"value": value} if value else {})})
        return taints

    def _annotations(self) -> dict[str, str]:
        annotations = {
            "rke2.io/hostname": self.name,
            "rke2.io/internal-ip": ",".join(self.addresses),
            "slipway.dev/simulation": "this node runs a simulation of RKE2",
        }
        if external := self.config.words("node-external-ip"):
            annotations["rke2.io/external-ip"] = ",".join(external)
        if self.is_server and self.layout.etcd_name.exists():
            annotations["etcd.rke2.cattle.io/node-address"] = self.addresses[0]
            annotations["etcd.rke2.cattle.io/node-name"] = self.layout.etcd_name.read_text().strip()
        return annotations

    def _conditions(self) -> list[Obj]:
        ready, reason, message = "True", "KubeletReady", "the simulated kubelet is posting ready status"
        if self.cluster.get("cni") == ["none"] and not list(Path("/etc/cni/net.d").glob("*.conf*")):
            ready, reason = "False", "KubeletNotReady"
            message = (
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
                "message:Network plugin returns error: cni plugin not initialized"
            )
        entries = [("Ready", ready, reason, message)]
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
            entries.append((kind, "False", f"KubeletHasNo{kind}", "simulated"))
        if self.voter is not None:
            is_voter = self.voter()
            entries.append(
                ("EtcdIsVoter", "True", "MemberNotLearner", "Node is a voting member of the etcd cluster")
                if is_voter
                else ("EtcdIsVoter", "False", "MemberIsLearner", "Node has not been promoted to voting member")
            )
        return [
            {"type": kind, "status": state, "reason": why, "message": text, "lastHeartbeatTime": now()}
            for kind, state, why, text in entries
        ]

    def _status(self, before: Obj) -> Obj:
        old = {entry["type"]: entry for entry in before.get("conditions") or []}
        conditions = self._conditions()
        for entry in conditions:
            same = old.get(entry["type"], {}).get("status") == entry["status"]
            entry["lastTransitionTime"] = old[entry["type"]].get("lastTransitionTime") if same else now()
        addresses = [{"type": "InternalIP", "address": address} for address in self.addresses]
        addresses += [{"type": "ExternalIP", "address": item} for item in self.config.words("node-external-ip")]
        addresses.append({"type": "Hostname", "address": self.name})
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
        capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": "110"}
        machine_id = Path("/etc/machine-id")
        return {
            "addresses": addresses,
            "conditions": conditions,
            "capacity": capacity,
            "allocatable": capacity,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                "machineID": machine_id.read_text().strip() if machine_id.exists() else "",
                "systemUUID": "",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": self.release.version,
                "containerRuntimeVersion": "simulation://1",
                "osImage": f"{_os_name()} (simulation of RKE2)",
            },
        }

    async def register(self) -> None:
        path = f"/api/v1/nodes/{self.name}"
        answer = await self.api.call("GET", path)
        metadata: Obj = {"name": self.name, "labels": self._labels(), "annotations": self._annotations()}
        if answer.status == 404:
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {**metadata, "finalizers": [NODE_FINALIZER]},
                "spec": {"taints": self._taints()},
                "status": self._status({}),
            }
            created = await self.api.call("POST", "/api/v1/nodes", node)
            expected(created, 201, 409)
            log.info(f"Successfully registered node {self.name}")
        expected(await self.api.merge(path, {"metadata": metadata}))
        # Before the status: without a current Lease the controllers would set it to Unknown again.
        await self._renew_lease()
        await self._post_status()
        await self._mirror_pods()

    async def _post_status(self) -> None:
        path = f"/api/v1/nodes/{self.name}"
        answer = await self.api.call("GET", path)
        if answer.status == 404:
            return
        before = expected(answer).get("status") or {}
        expected(await self.api.merge(f"{path}/status", {"status": self._status(before)}), 200, 404)

    async def _renew_lease(self) -> bool:
        """Renew the Lease. False when the Node was deleted; a kubelet creates its Node only at its start."""
        node = await self.api.call("GET", f"/api/v1/nodes/{self.name}")
        if node.status == 404:
            return False
        body = expected(node)
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micro_time()}
        answer = await self.api.merge(path, {"spec": spec})
        if answer.status == 404:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": body["metadata"]["uid"]}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "ownerReferences": [owner]},
                "spec": spec,
            }
            await self.api.call("POST", path.rpartition("/")[0], lease)
        seen = {entry["type"]: entry["status"] for entry in body["status"].get("conditions") or []}
        if any(seen.get(entry["type"]) != entry["status"] for entry in self._conditions()):
            await self._post_status()
        return True

    async def heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                if not await self._renew_lease():
                    log.error(f'Error updating node status, will retry: nodes "{self.name}" not found')
                if not self.is_server:
                    await self._update_servers()
            except (OSError, ValueError) as fault:
                log.error(f"Failed to update lease: {fault}")

    async def _update_servers(self) -> None:
        answer = await self.api.call("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
        if answer.status != 200:
            return
        hosts = [entry["ip"] for subset in answer.json().get("subsets") or [] for entry in subset["addresses"]]
        if hosts and set(hosts) != set(self.api.hosts) and self.server_addresses_changed is not None:
            self.server_addresses_changed(hosts)

    # Pods

    async def _mirror_pods(self) -> None:
        """Mirror pods of the static pods: one per component, owned by the Node."""
        names = [name for name in SERVER_PODS if self.is_server]
        if self.config.flag("disable-cloud-controller"):
            names = [name for name in names if name != "cloud-controller-manager"]
        if not self.config.flag("disable-kube-proxy"):
            names.append("kube-proxy")
        node = expected(await self.api.call("GET", f"/api/v1/nodes/{self.name}"))
        for component in names:
            await self._mirror_pod(component, node["metadata"]["uid"])

    async def _mirror_pod(self, component: str, uid: str) -> None:
        name = f"{component}-{self.name}"
        base = "/api/v1/namespaces/kube-system/pods"
        image = f"rancher/hardened-{'etcd' if component == 'etcd' else 'kubernetes'}:{self.release.tag}-simulation"
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": uid, "controller": True}
        mirror = f"{self.release.version}-{uid}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "kube-system",
                "labels": {"component": component, "tier": "control-plane"},
                "annotations": {
                    "kubernetes.io/config.source": "file",
                    "kubernetes.io/config.mirror": mirror,
                    "kubernetes.io/config.hash": mirror,
                },
                "ownerReferences": [owner],
            },
            "spec": {
                "nodeName": self.name,
                "hostNetwork": True,
                "priorityClassName": "system-cluster-critical",
                "containers": [{"name": component, "image": image}],
                "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            },
            "status": running_status(component, image, self.addresses[0]),
        }
        present = await self.api.call("GET", f"{base}/{name}")
        if present.status == 200:
            annotations = present.json()["metadata"].get("annotations") or {}
            if annotations.get("kubernetes.io/config.mirror") == mirror:
                expected(await self.api.merge(f"{base}/{name}/status", {"status": pod["status"]}), 200, 404)
                return
            await self.api.call("DELETE", f"{base}/{name}")
        expected(await self.api.call("POST", base, pod), 201, 409)


def running_status(container: str, image: str, address: str) -> Obj:
    started = now()
    return {
        "phase": "Running",
        "podIP": address,
        "hostIP": address,
        "startTime": started,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": started}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "containerStatuses": [
            {
                "name": container,
                "image": image,
                "imageID": image,
                "containerID": "simulation://none",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": started}},
            }
        ],
    }


def _os_name() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"
