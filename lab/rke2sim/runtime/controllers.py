"""The controllers of the leader among the servers: node health, workloads, garbage collection."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
import secrets
from typing import Any

from . import log, selectors
from .api import Api, allowed_disruptions, owned_by
from .config import Config
from .etcd import EtcdError
from .kubelet import running_status
from .resources import Obj, Resource
from .store import ROOT, ApiError, Event, Store, now
from .supervisor import NodePasswords
from .tables import condition

LEADER_KEY = "/slipway/leader"
LEADER_SECONDS = 6
TICK_SECONDS = 2
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def parse_duration(text: str) -> float:
    """Go's `40s`, `1m30s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    total, number = 0.0, ""
    for character in text:
        if character in units:
            total += float(number) * units[character]
            number = ""
        else:
            number += character
    return total


def member_node(member_name: str) -> str:
    """The node of an etcd member name `<node>-<8 hex>`."""
    return member_name.rpartition("-")[0]


class Controllers:
    def __init__(self, config: Config, store: Store, api: Api, name: str) -> None:
        self.store = store
        self.api = api
        self.name = name
        self.grace = parse_duration(
            config.component_arg("kube-controller-manager-arg", "node-monitor-grace-period", "40s")
        )
        self._renewed: dict[str, tuple[str, float]] = {}
        self._dirty = asyncio.Event()
        self.passwords = NodePasswords(store, api.catalogue)

    def _resource(self, group: str, plural: str) -> Resource:
        for version in ("v1", "v2"):
            found = self.api.catalogue.find(group, version, plural)
            if found is not None:
                return found
        raise LookupError(plural)

    # Leadership

    async def run(self) -> None:
        """Leader election: acquire the lock, run the controllers while it is held, repeat."""
        await self.store.synced.wait()
        while True:
            lease = ""
            try:
                lease = await self.store.etcd.grant(LEADER_SECONDS)
                while not await self.store.etcd.create_under_lease(LEADER_KEY, self.name, lease):
                    await asyncio.sleep(TICK_SECONDS)
                    if not await self.store.etcd.keep_alive(lease):
                        lease = await self.store.etcd.grant(LEADER_SECONDS)
                log.info(f"{self.name} is the leader of the controllers")
                await self._run_as_leader(lease)
            except EtcdError as fault:
                log.warning(f"controllers: {fault}")
            finally:
                with contextlib.suppress(EtcdError):
                    await self.store.etcd.revoke(lease)  # Otherwise the next leader would wait until it expires.
            await asyncio.sleep(1)

    async def _run_as_leader(self, lease: str) -> None:
        self._renewed.clear()
        self._dirty.set()
        await self._collect_garbage()
        work = [asyncio.create_task(self._watch_objects()), asyncio.create_task(self._reconcile())]
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                if not await self.store.etcd.keep_alive(lease):
                    log.warning("controllers: the lock is lost")
                    return
                for task in work:
                    if task.done():
                        task.result()
                await self._monitor_nodes()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _watch_objects(self) -> None:
        async with self.store.subscribe(ROOT) as subscription:
            while True:
                event = await subscription.queue.get()
                if event is None:
                    self._dirty.set()
                    continue
                if "/leases/" not in event.key:
                    self._dirty.set()
                if event.object is None and event.previous is not None:
                    try:
                        await self._delete_dependents(event)
                    except (ApiError, EtcdError) as fault:
                        log.warning(f"controllers: after the deletion of {event.key}: {fault}")

    async def _delete_dependents(self, event: Event) -> None:
        """Delete the objects that the deleted object owned."""
        assert event.previous is not None
        uid = event.previous["metadata"]["uid"]
        for item in list(self.store.objects.values()):
            if owned_by(item, uid):
                await self._delete(item)

    async def _collect_garbage(self) -> None:
        """Delete objects whose owners were deleted while there was no leader."""
        present = {item["metadata"].get("uid") for item in self.store.objects.values()}
        for item in list(self.store.objects.values()):
            owners = item["metadata"].get("ownerReferences") or []
            if owners and not any(owner.get("uid") in present for owner in owners):
                await self._delete(item)

    async def _finalize_deleted_nodes(self) -> None:
        """Remove deleted Nodes with their node passwords and etcd members."""
        resource = self._resource("", "nodes")
        for node in self._nodes():
            metadata = node["metadata"]
            if not metadata.get("deletionTimestamp"):
                continue
            await self.passwords.remove(metadata["name"])
            for member in await self.store.etcd.members():
                if member_node(member.get("name", "")) == metadata["name"]:
                    log.info(f"Removing etcd member {member['name']} of the deleted node {metadata['name']}")
                    await self.store.etcd.remove(member["ID"])
            await self.store.remove(resource, await self.store.get(resource, "", metadata["name"]))

    async def _delete(self, item: Obj) -> None:
        resource = self.api.catalogue.by_kind(item["apiVersion"], item["kind"])
        if resource is None:
            return
        metadata = item["metadata"]
        try:
            await self.api.delete(resource, metadata.get("namespace", ""), metadata["name"])
        except ApiError as fault:
            if fault.code != 404:
                raise

    # Nodes

    async def _monitor_nodes(self) -> None:
        clock = asyncio.get_running_loop().time()
        leases = {
            lease["metadata"]["name"]: lease["spec"].get("renewTime", "")
            for lease in self.store.cached(self._resource("coordination.k8s.io", "leases"), "kube-node-lease")
        }
        for node in self.store.cached(self._resource("", "nodes")):
            name = node["metadata"]["name"]
            renewed = leases.get(name, "")
            last_renewal, since = self._renewed.get(name, ("", 0.0))
            if renewed != last_renewal or not since:
                self._renewed[name] = (renewed, clock)
                since = clock
            stale = clock - since > self.grace
            try:
                await self._update_node_health(node, stale=stale)
            except ApiError as fault:
                if fault.reason not in ("Conflict", "NotFound"):
                    raise

    async def _update_node_health(self, node: Obj, *, stale: bool) -> None:
        state = condition(node, "Ready")
        wanted = copy.deepcopy(node)
        if stale and state != "Unknown":
            log.info(f"node {node['metadata']['name']} did not renew its lease for {self.grace:.0f} s")
            for entry in wanted["status"]["conditions"]:
                if entry["type"] in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
                    entry |= {
                        "status": "Unknown",
                        "reason": "NodeStatusUnknown",
                        "message": "Kubelet stopped posting node status.",
                        "lastTransitionTime": now(),
                    }
        taints = [
            taint
            for taint in wanted["spec"].get("taints") or []
            if taint["key"] not in (UNREACHABLE, UNSCHEDULABLE, "node.kubernetes.io/not-ready")
        ]
        current_taints = {(t["key"], t["effect"]): t for t in node["spec"].get("taints") or []}
        state = condition(wanted, "Ready")
        for key, effect, needed in (
            (UNREACHABLE, "NoSchedule", state == "Unknown"),
            (UNREACHABLE, "NoExecute", state == "Unknown"),
            ("node.kubernetes.io/not-ready", "NoSchedule", state == "False"),
            (UNSCHEDULABLE, "NoSchedule", bool(wanted["spec"].get("unschedulable"))),
        ):
            if needed:
                taints.append(current_taints.get((key, effect), {"key": key, "effect": effect, "timeAdded": now()}))
        if taints:
            wanted["spec"]["taints"] = taints
        else:
            wanted["spec"].pop("taints", None)
        if wanted != node:
            await self.store.replace(self._resource("", "nodes"), wanted, node["metadata"]["resourceVersion"])

    # Workloads

    async def _reconcile(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.sleep(0.1)
            for step in (
                self._finalize_deleted_nodes,
                self._endpoints,
                self._pod_conditions,
                self._deployments,
                self._replica_sets,
                self._stateful_sets,
                self._daemon_sets,
                self._jobs,
                self._schedule,
                self._budgets,
                self._namespaces,
            ):
                try:
                    await step()
                except ApiError as fault:
                    if fault.reason not in ("Conflict", "NotFound", "AlreadyExists", "Forbidden"):
                        log.warning(f"controllers: {step.__name__}: {fault}")
                    self._dirty.set()
                except EtcdError as fault:
                    log.warning(f"controllers: {step.__name__}: {fault}")
                    self._dirty.set()
                    await asyncio.sleep(1)
            if self._dirty.is_set():
                await asyncio.sleep(0.2)

    def _nodes(self) -> list[Obj]:
        return list(self.store.cached(self._resource("", "nodes")))

    def _pods(self, namespace: str = "") -> list[Obj]:
        return list(self.store.cached(self._resource("", "pods"), namespace))

    async def _set_status(self, resource: Resource, item: Obj, changes: Obj) -> None:
        before = item.get("status") or {}
        after = {**before, **changes}
        if before != after:
            await self.store.replace(resource, {**item, "status": after}, item["metadata"]["resourceVersion"])

    async def _endpoints(self) -> None:
        """The endpoints of the API: the addresses of the servers that are Ready."""
        resource = self._resource("", "endpoints")
        addresses = sorted(
            entry["address"]
            for node in self._nodes()
            if "node-role.kubernetes.io/control-plane" in node["metadata"].get("labels", {})
            and condition(node, "Ready") == "True"
            for entry in node["status"].get("addresses", [])[:1]
        )
        if not addresses:
            return
        port = {"name": "https", "port": 6443, "protocol": "TCP"}
        subsets = [{"addresses": [{"ip": ip} for ip in addresses], "ports": [port]}]
        found = await self.store.find(resource, "default", "kubernetes")
        if found is None:
            await self.api.create(resource, "default", {"metadata": {"name": "kubernetes"}, "subsets": subsets})
        elif found.get("subsets") != subsets:
            await self.store.replace(resource, {**found, "subsets": subsets}, found["metadata"]["resourceVersion"])

    async def _pod_conditions(self) -> None:
        """Set pods of a stale node to not ready, and delete those of a deleted node."""
        nodes = {node["metadata"]["name"]: node for node in self._nodes()}
        resource = self._resource("", "pods")
        for pod in self._pods():
            node_name = pod["spec"].get("nodeName")
            if not node_name:
                continue
            if node_name not in nodes:
                await self._delete(pod)
                continue
            is_reachable = condition(nodes[node_name], "Ready") != "Unknown"
            if pod["status"].get("phase") != "Running" or (condition(pod, "Ready") == "True") == is_reachable:
                continue
            status = copy.deepcopy(pod["status"])
            for entry in status.get("conditions") or []:
                if entry["type"] in ("Ready", "ContainersReady"):
                    entry["status"] = "True" if is_reachable else "False"
                    entry["lastTransitionTime"] = now()
            for entry in status.get("containerStatuses") or []:
                entry["ready"] = is_reachable
            await self.store.replace(resource, {**pod, "status": status}, pod["metadata"]["resourceVersion"])

    def _owned(self, owner: Obj, pods: list[Obj]) -> list[Obj]:
        uid = owner["metadata"]["uid"]
        return [pod for pod in pods if owned_by(pod, uid)]

    async def _new_pod(self, owner: Obj, template: Obj, name: str, node: str = "", extra: Obj | None = None) -> None:
        namespace = owner["metadata"]["namespace"]
        metadata = template.get("metadata") or {}
        pod = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**(metadata.get("labels") or {}), **(extra or {})},
                "annotations": dict(metadata.get("annotations") or {}),
                "ownerReferences": [owner_reference(owner)],
            },
            "spec": copy.deepcopy(template.get("spec") or {}),
        }
        if node:
            pod["spec"]["nodeName"] = node
        await self.api.create(self._resource("", "pods"), namespace, pod)

    async def _deployments(self) -> None:
        resource, sets = self._resource("apps", "deployments"), self._resource("apps", "replicasets")
        for item in self.store.cached(resource):
            namespace, spec = item["metadata"]["namespace"], item.get("spec", {})
            if item["metadata"].get("deletionTimestamp"):
                continue
            mark = template_hash(spec.get("template") or {})
            owned = self._owned(item, list(self.store.cached(sets, namespace)))
            current = [rs for rs in owned if rs["metadata"]["labels"].get("pod-template-hash") == mark]
            if not current:
                template = copy.deepcopy(spec.get("template") or {})
                template.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = mark
                selector = copy.deepcopy(spec.get("selector") or {})
                selector.setdefault("matchLabels", {})["pod-template-hash"] = mark
                replica_set = {
                    "metadata": {
                        "name": f"{item['metadata']['name']}-{mark}",
                        "namespace": namespace,
                        "labels": template["metadata"]["labels"],
                        "ownerReferences": [owner_reference(item)],
                    },
                    "spec": {"replicas": spec.get("replicas", 1), "selector": selector, "template": template},
                }
                await self.api.create(sets, namespace, replica_set)
                continue
            new = current[0]
            if new["spec"].get("replicas") != spec.get("replicas", 1):
                scaled = {**new, "spec": {**new["spec"], "replicas": spec.get("replicas", 1)}}
                await self.store.replace(sets, scaled, new["metadata"]["resourceVersion"])
            ready = (new.get("status") or {}).get("readyReplicas", 0)
            for old in owned:
                if old is not new and old["spec"].get("replicas") and ready >= spec.get("replicas", 1):
                    emptied = {**old, "spec": {**old["spec"], "replicas": 0}}
                    await self.store.replace(sets, emptied, old["metadata"]["resourceVersion"])
            total = sum((rs.get("status") or {}).get("replicas", 0) for rs in owned)
            complete = ready >= spec.get("replicas", 1)
            await self._set_status(
                resource,
                item,
                {
                    "observedGeneration": item["metadata"].get("generation", 1),
                    "replicas": total,
                    "updatedReplicas": (new.get("status") or {}).get("replicas", 0),
                    "readyReplicas": ready,
                    "availableReplicas": ready,
                    "unavailableReplicas": max(0, spec.get("replicas", 1) - ready),
                    "conditions": [
                        {"type": "Available", "status": "True" if complete else "False", "reason": "Simulated"},
                        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
                    ],
                },
            )

    async def _replica_sets(self) -> None:
        resource = self._resource("apps", "replicasets")
        for item in self.store.cached(resource):
            wanted = item["spec"].get("replicas", 1)
            pods = self._owned(item, self._pods(item["metadata"]["namespace"]))
            for pod in pods[wanted:]:
                await self._delete(pod)
            for _ in range(wanted - len(pods)):
                name = f"{item['metadata']['name']}-{secrets.token_hex(3)[:5]}"
                await self._new_pod(item, item["spec"]["template"], name)
            await self._replica_status(resource, item, pods[:wanted])

    async def _replica_status(self, resource: Resource, item: Obj, pods: list[Obj]) -> None:
        ready = sum(1 for pod in pods if condition(pod, "Ready") == "True")
        await self._set_status(
            resource,
            item,
            {
                "observedGeneration": item["metadata"].get("generation", 1),
                "replicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
            },
        )

    async def _stateful_sets(self) -> None:
        resource = self._resource("apps", "statefulsets")
        for item in self.store.cached(resource):
            name, wanted = item["metadata"]["name"], item["spec"].get("replicas", 1)
            mark = template_hash(item["spec"].get("template") or {})
            owned = self._owned(item, self._pods(item["metadata"]["namespace"]))
            pods = {pod["metadata"]["name"]: pod for pod in owned}
            for position in range(wanted):
                pod = pods.get(f"{name}-{position}")
                if pod is None:
                    labels = {"controller-revision-hash": f"{name}-{mark}"}
                    await self._new_pod(item, item["spec"]["template"], f"{name}-{position}", extra=labels)
                elif pod["metadata"]["labels"].get("controller-revision-hash") != f"{name}-{mark}":
                    await self._delete(pod)
            for pod_name, pod in pods.items():
                if int(pod_name.rpartition("-")[2]) >= wanted:
                    await self._delete(pod)
            await self._replica_status(resource, item, list(pods.values()))
            revision = {"currentRevision": f"{name}-{mark}", "updateRevision": f"{name}-{mark}"}
            fresh = await self.store.get(resource, item["metadata"]["namespace"], name)
            await self._set_status(resource, fresh, {**revision, "updatedReplicas": len(pods)})

    async def _daemon_sets(self) -> None:
        resource = self._resource("apps", "daemonsets")
        for item in self.store.cached(resource):
            template = item["spec"].get("template") or {}
            mark = template_hash(template)
            nodes = [node for node in self._nodes() if fits(template.get("spec") or {}, node, daemon=True)]
            pods = self._owned(item, self._pods(item["metadata"]["namespace"]))
            by_node = {pod["spec"].get("nodeName"): pod for pod in pods}
            for node in nodes:
                name = node["metadata"]["name"]
                pod = by_node.get(name)
                if pod is None:
                    await self._new_pod(
                        item, template, f"{item['metadata']['name']}-{secrets.token_hex(3)[:5]}", name,
                        {"controller-revision-hash": mark},
                    )  # fmt: skip
                elif pod["metadata"]["labels"].get("controller-revision-hash") != mark:
                    await self._delete(pod)
            ready = sum(1 for pod in pods if condition(pod, "Ready") == "True")
            await self._set_status(
                resource,
                item,
                {
                    "observedGeneration": item["metadata"].get("generation", 1),
                    "desiredNumberScheduled": len(nodes),
                    "currentNumberScheduled": len(pods),
                    "updatedNumberScheduled": len(pods),
                    "numberReady": ready,
                    "numberAvailable": ready,
                    "numberMisscheduled": 0,
                },
            )

    async def _jobs(self) -> None:
        """Complete Jobs at once, with a message in their condition that nothing ran."""
        resource = self._resource("batch", "jobs")
        for item in self.store.cached(resource):
            if item.get("status", {}).get("completionTime") or item["spec"].get("suspend"):
                continue
            stamp = now()
            message = "the simulation runs no containers; the job is set to complete"
            await self._set_status(
                resource,
                item,
                {
                    "startTime": stamp,
                    "completionTime": stamp,
                    "succeeded": item["spec"].get("completions", 1),
                    "conditions": [
                        {"type": "Complete", "status": "True", "reason": "Simulated", "message": message,
                         "lastTransitionTime": stamp}
                    ],
                },
            )  # fmt: skip

    async def _schedule(self) -> None:
        """Bind each pending pod to the matching node with the fewest pods, where it is Running at once."""
        resource = self._resource("", "pods")
        pods = self._pods()
        load: dict[str, int] = {}
        for pod in pods:
            if name := pod["spec"].get("nodeName"):
                load[name] = load.get(name, 0) + 1
        nodes = {node["metadata"]["name"]: node for node in self._nodes()}
        for pod in pods:
            if pod["status"].get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp"):
                continue
            name = pod["spec"].get("nodeName")
            if not name:
                choices = [node for node in nodes.values() if fits(pod["spec"], node)]
                if not choices:
                    reason = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                              "message": f"0/{len(nodes)} nodes are available."}  # fmt: skip
                    await self._set_status(resource, pod, {"conditions": [reason]})
                    continue
                name = min((node["metadata"]["name"] for node in choices), key=lambda key: (load.get(key, 0), key))
            node = nodes.get(name)
            if node is None or condition(node, "Ready") != "True":
                continue
            load[name] = load.get(name, 0) + 1
            address = next((a["address"] for a in node["status"].get("addresses") or []), "")
            status = running_status("", "", address)
            template = status["containerStatuses"][0]
            status["containerStatuses"] = [
                {**template, "name": container["name"], "image": container.get("image", "")}
                for container in pod["spec"].get("containers") or []
            ]
            if not pod["spec"].get("hostNetwork"):
                digest = hashlib.sha256(pod["metadata"]["uid"].encode()).digest()
                status["podIP"] = f"10.42.{digest[0]}.{digest[1] or 1}"
            placed = {**pod, "spec": {**pod["spec"], "nodeName": name}, "status": status}
            await self.store.replace(resource, placed, pod["metadata"]["resourceVersion"])

    async def _budgets(self) -> None:
        resource = self._resource("policy", "poddisruptionbudgets")
        for item in self.store.cached(resource):
            spec = item.get("spec", {})
            pods = [
                pod
                for pod in self._pods(item["metadata"]["namespace"])
                if selectors.match_object(spec.get("selector"), pod["metadata"].get("labels") or {})
            ]
            healthy = sum(1 for pod in pods if condition(pod, "Ready") == "True")
            allowed = allowed_disruptions(spec, len(pods), healthy)
            await self._set_status(
                resource,
                item,
                {
                    "expectedPods": len(pods),
                    "currentHealthy": healthy,
                    "desiredHealthy": healthy - allowed,
                    "disruptionsAllowed": allowed,
                    "observedGeneration": item["metadata"].get("generation", 1),
                },
            )

    async def _namespaces(self) -> None:
        """Remove namespaces whose contents had finalizers."""
        resource = self._resource("", "namespaces")
        for item in list(self.store.cached(resource)):
            if item["metadata"].get("deletionTimestamp"):
                await self.api.delete(resource, "", item["metadata"]["name"])


def owner_reference(owner: Obj) -> Obj:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(template: Obj) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def tolerates(tolerations: list[Obj], taint: Obj) -> bool:
    for item in tolerations:
        if item.get("effect") and item["effect"] != taint.get("effect"):
            continue
        if item.get("operator", "Equal") == "Exists":
            if not item.get("key") or item["key"] == taint["key"]:
                return True
        elif item.get("key") == taint["key"] and item.get("value", "") == taint.get("value", ""):
            return True
    return False


def fits(spec: Obj, node: Obj, *, daemon: bool = False) -> bool:
    """Whether a pod may be scheduled to this node: node selector, required node affinity, taints."""
    labels: dict[str, Any] = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if required and not any(
        selectors.match_object({"matchExpressions": term.get("matchExpressions") or []}, labels) for term in required
    ):
        return False
    builtin = (UNREACHABLE, UNSCHEDULABLE, "node.kubernetes.io/not-ready")
    for taint in node["spec"].get("taints") or []:
        if taint.get("effect") == "PreferNoSchedule" or (daemon and taint["key"] in builtin):
            continue
        if not tolerates(spec.get("tolerations") or [], taint):
            return False
    if node["spec"].get("unschedulable") and not daemon:
        return False
    return daemon or condition(node, "Ready") == "True"
