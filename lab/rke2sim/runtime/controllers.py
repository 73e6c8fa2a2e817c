"""What RKE2's servers do in the cluster beside Kubernetes' own controllers: definitions, nodes, etcd membership."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from . import log
from .api_client import ApiClient, expected
from .config import Config
from .etcd import Etcd, EtcdError
from .kubelet import SERVER_LABELS
from .layout import Layout
from .log import timestamp
from .resources import Obj
from .supervisor import NodePasswords

NODE_FINALIZER = "wrangler.cattle.io/node"
"""Finalizer of a Node: a server first removes its node password and its etcd member."""
POLL_SECONDS = 3
HELM_STATUS = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


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


def definition(group: str, plural: str, kind: str, *, namespaced: bool) -> Obj:
    """A CustomResourceDefinition without a schema of its fields; upstream's have one."""
    schema = {"type": "object", "properties": {"spec": HELM_STATUS, "status": HELM_STATUS}}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }


DEFINITIONS = (
    definition("k3s.cattle.io", "addons", "Addon", namespaced=True),
    definition("k3s.cattle.io", "etcdsnapshotfiles", "ETCDSnapshotFile", namespaced=False),
)


def member_node(member_name: str) -> str:
    """The node of an etcd member name `<node>-<8 hex>`."""
    return member_name.rpartition("-")[0]


async def create_definitions(api: ApiClient) -> None:
    for item in DEFINITIONS:
        name = item["metadata"]["name"]
        await api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", item)
    for item in DEFINITIONS:
        spec = item["spec"]
        path = f"/apis/{spec['group']}/v1/{spec['names']['plural']}"
        while (await api.call("GET", path)).status == 404:  # established within a second
            await asyncio.sleep(0.2)


class Nodes:
    """The duties of a server for the Nodes of the cluster, and for its own."""

    def __init__(
        self, config: Config, layout: Layout, name: str, addresses: list[str], api: ApiClient, etcd: Etcd,
        is_voter: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.config = config
        self.layout = layout
        self.name = name
        self.addresses = addresses
        self.api = api
        self.etcd = etcd
        self.is_voter = is_voter
        self.passwords = NodePasswords(api)

    async def run(self) -> None:
        while True:
            try:
                for node in await self._list():
                    await self._reconcile(node)
            except (OSError, TimeoutError, ValueError, EtcdError) as fault:
                log.warning(f"nodes: {fault}")
            await asyncio.sleep(POLL_SECONDS)

    async def _list(self) -> list[Obj]:
        items: list[Obj] = expected(await self.api.call("GET", "/api/v1/nodes?resourceVersion=0"))["items"]
        return items

    async def _reconcile(self, node: Obj) -> None:
        metadata = node["metadata"]
        path = f"/api/v1/nodes/{metadata['name']}"
        finalizers = metadata.get("finalizers") or []
        if metadata.get("deletionTimestamp"):
            if NODE_FINALIZER in finalizers:
                await self._remove(metadata["name"])
                rest = [item for item in finalizers if item != NODE_FINALIZER]
                expected(await self.api.replace_finalizers(path, rest), 200, 404)
            return
        if NODE_FINALIZER not in finalizers:
            expected(await self.api.replace_finalizers(path, [*finalizers, NODE_FINALIZER]), 200, 404)
        if metadata["name"] == self.name:
            await self._own(node, path)

    async def _remove(self, name: str) -> None:
        await self.passwords.remove(name)
        for member in await self.etcd.members():
            if member_node(member.get("name", "")) == name:
                log.info(f"Removing etcd member {member['name']} of the deleted node {name}")
                await self.etcd.remove(member["ID"])

    async def _own(self, node: Obj, path: str) -> None:
        labels = dict.fromkeys(SERVER_LABELS, "true")
        annotations = {
            "etcd.rke2.cattle.io/node-address": self.addresses[0],
            "etcd.rke2.cattle.io/node-name": self.layout.etcd_name.read_text().strip(),
            "rke2.io/hostname": self.name,
            "rke2.io/internal-ip": ",".join(self.addresses),
        }
        if external := self.config.words("node-external-ip"):
            annotations["rke2.io/external-ip"] = ",".join(external)
        metadata = node["metadata"]
        wanted = {"labels": labels, "annotations": annotations}
        if any(not values.items() <= (metadata.get(kind) or {}).items() for kind, values in wanted.items()):
            expected(await self.api.merge(path, {"metadata": wanted}), 200, 404)
        before = {entry["type"]: entry["status"] for entry in node["status"].get("conditions") or []}
        voter = self.is_voter()
        if before.get("EtcdIsVoter") != str(voter):
            expected(
                await self.api.merge(f"{path}/status", {"status": {"conditions": [voter_condition(voter)]}}), 200, 404
            )


def voter_condition(is_voter: bool) -> Obj:
    state: dict[str, Any] = (
        {"status": "True", "reason": "MemberNotLearner", "message": "Node is a voting member of the etcd cluster"}
        if is_voter
        else {"status": "False", "reason": "MemberIsLearner", "message": "Node has not been promoted to voting member"}
    )
    return {"type": "EtcdIsVoter", "lastHeartbeatTime": timestamp(), "lastTransitionTime": timestamp(), **state}
