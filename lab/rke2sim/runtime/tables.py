"""Output of `kubectl get`: objects as rows of a meta.k8s.io/v1 Table."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .resources import Obj, Resource

Row = list[Any]
Column = tuple[str, str, int]
"""Name, type and priority; columns of priority 1 are printed with `-o wide`."""

NAME: Column = ("Name", "string", 0)
AGE: Column = ("Age", "string", 0)


def age(text: str | None) -> str:
    if not text:
        return "<unknown>"
    then = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    return f"{days}d"


def dig(item: Any, path: str, default: Any = "") -> Any:
    for word in path.split("."):
        item = item.get(word) if isinstance(item, dict) else None
    return default if item is None else item


def condition(item: Obj, kind: str) -> str:
    for entry in dig(item, "status.conditions", []):
        if entry.get("type") == kind:
            return str(entry.get("status"))
    return "Unknown"


def _node(item: Obj) -> Row:
    ready = {"True": "Ready", "False": "NotReady"}.get(condition(item, "Ready"), "NotReady")
    if dig(item, "spec.unschedulable", False):
        ready += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(label.removeprefix(prefix) for label in dig(item, "metadata.labels", {}) if label.startswith(prefix))
    addresses = {entry["type"]: entry["address"] for entry in dig(item, "status.addresses", [])}
    info = dig(item, "status.nodeInfo", {})
    return [
        ready, ",".join(roles) or "<none>", _age(item), info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"), addresses.get("ExternalIP", "<none>"), info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"), info.get("containerRuntimeVersion", "<unknown>"),
    ]  # fmt: skip


def _pod(item: Obj) -> Row:
    statuses = dig(item, "status.containerStatuses", [])
    total = len(dig(item, "spec.containers", []))
    ready = sum(1 for entry in statuses if entry.get("ready"))
    word = dig(item, "status.reason") or dig(item, "status.phase", "Pending")
    word = "Completed" if word == "Succeeded" else word
    if dig(item, "metadata.deletionTimestamp"):
        word = "Terminating"
    restarts = sum(entry.get("restartCount", 0) for entry in statuses)
    return [
        f"{ready}/{total}", word, restarts, _age(item), dig(item, "status.podIP") or "<none>",
        dig(item, "spec.nodeName") or "<none>", "<none>", "<none>",
    ]  # fmt: skip


def _service(item: Obj) -> Row:
    ports = ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in dig(item, "spec.ports", []))
    selector = ",".join(f"{key}={value}" for key, value in dig(item, "spec.selector", {}).items())
    return [
        dig(item, "spec.type", "ClusterIP"), dig(item, "spec.clusterIP", "<none>"), "<none>", ports or "<none>",
        _age(item), selector or "<none>",
    ]  # fmt: skip


def _age(item: Obj) -> str:
    return age(dig(item, "metadata.creationTimestamp"))


def _count(path: str) -> Callable[[Obj], Any]:
    return lambda item: dig(item, path, 0)


def _text(path: str, default: str = "<none>") -> Callable[[Obj], Any]:
    return lambda item: dig(item, path, default)


def _each(*columns: Callable[[Obj], Any]) -> Callable[[Obj], Row]:
    return lambda item: [column(item) for column in columns]


def _ready(item: Obj) -> str:
    return f"{dig(item, 'status.readyReplicas', 0)}/{dig(item, 'spec.replicas', 1)}"


def _completions(item: Obj) -> str:
    return f"{dig(item, 'status.succeeded', 0)}/{dig(item, 'spec.completions', 1)}"


def _size(item: Obj) -> int:
    return len(item.get("data") or {}) + len(item.get("binaryData") or {})


def _disruptions(item: Obj) -> Row:
    spec = item.get("spec", {})
    return [
        str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A")),
        dig(item, "status.disruptionsAllowed", 0), _age(item),
    ]  # fmt: skip


def _event(item: Obj) -> Row:
    involved = item.get("involvedObject", {})
    last_seen = item.get("lastTimestamp") or item.get("eventTime")
    return [
        age(last_seen), item.get("type", ""), item.get("reason", ""),
        f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}", str(item.get("message", "")).strip(),
    ]  # fmt: skip


def _ingress(item: Obj) -> Row:
    hosts = ",".join(rule.get("host", "*") for rule in dig(item, "spec.rules", [])) or "*"
    tls = "80, 443" if dig(item, "spec.tls", []) else "80"
    return [dig(item, "spec.ingressClassName", "<none>"), hosts, "", tls, _age(item)]


def _columns(text: str) -> list[Column]:
    """Parse `A B:integer C*`: names, types, and a star for columns of `-o wide`."""
    result = []
    for word in text.split():
        name, _, kind = word.rstrip("*").partition(":")
        result.append((name.replace("_", " "), kind or "string", 1 if word.endswith("*") else 0))
    return result


TABLES: dict[str, tuple[list[Column], Callable[[Obj], Row]]] = {
    "nodes": (
        _columns("Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*"),
        _node,
    ),
    "pods": (_columns("Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*"), _pod),
    "namespaces": (_columns("Status Age"), _each(_text("status.phase", "Active"), _age)),
    "services": (_columns("Type Cluster-IP External-IP Port(s) Age Selector*"), _service),
    "deployments.apps": (
        _columns("Ready Up-to-date:integer Available:integer Age"),
        _each(_ready, _count("status.updatedReplicas"), _count("status.availableReplicas"), _age),
    ),
    "statefulsets.apps": (_columns("Ready Age"), _each(_ready, _age)),
    "replicasets.apps": (
        _columns("Desired:integer Current:integer Ready:integer Age"),
        _each(_count("spec.replicas"), _count("status.replicas"), _count("status.readyReplicas"), _age),
    ),
    "daemonsets.apps": (
        _columns("Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer Age"),
        _each(
            _count("status.desiredNumberScheduled"), _count("status.currentNumberScheduled"),
            _count("status.numberReady"), _count("status.updatedNumberScheduled"), _count("status.numberAvailable"),
            _age,
        ),
    ),
    "jobs.batch": (_columns("Completions Age"), _each(_completions, _age)),
    "secrets": (
        _columns("Type Data:integer Age"),
        _each(_text("type", "Opaque"), lambda item: len(item.get("data") or {}), _age),
    ),
    "configmaps": (_columns("Data:integer Age"), _each(_size, _age)),
    "leases.coordination.k8s.io": (_columns("Holder Age"), _each(_text("spec.holderIdentity", ""), _age)),
    "poddisruptionbudgets.policy": (
        _columns("Min_Available Max_Unavailable Allowed_Disruptions:integer Age"), _disruptions
    ),
    "events": (
        [("Last Seen", "string", 0), ("Type", "string", 0), ("Reason", "string", 0), ("Object", "string", 0),
         ("Message", "string", 0)],
        _event,
    ),
    "ingresses.networking.k8s.io": (_columns("Class Hosts Address Ports Age"), _ingress),
    "customresourcedefinitions.apiextensions.k8s.io": (
        _columns("Created_At"), _each(_text("metadata.creationTimestamp"))
    ),
    "helmcharts.helm.cattle.io": (
        _columns("Repo Chart Version TargetNamespace Bootstrap"),
        _each(
            _text("spec.repo", ""), _text("spec.chart", ""), _text("spec.version", ""),
            _text("spec.targetNamespace", ""), _text("spec.bootstrap", ""),
        ),
    ),
    "addons.k3s.cattle.io": (
        _columns("Source Checksum"), _each(_text("spec.source", ""), _text("spec.checksum", ""))
    ),
    "etcdsnapshotfiles.k3s.cattle.io": (
        _columns("SnapshotName Node Location Size CreationTime"),
        _each(
            _text("spec.snapshotName", ""), _text("spec.nodeName", ""), _text("spec.location", ""),
            _text("status.size", ""), _text("status.creationTime", ""),
        ),
    ),
}  # fmt: skip


def json_path(item: Obj, path: str) -> Any:
    """The subset of JSONPath in printer columns: `.a.b[0]` and `.a[?(@.type=="Ready")].b`."""
    value: Any = item
    for word, index, key, wanted in re.findall(
        r"\.?([\w\-/]+)|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*[\"']([^\"']*)[\"']\)\]", path.replace("\\.", "\x00")
    ):
        if word:
            value = value.get(word.replace("\x00", ".")) if isinstance(value, dict) else None
        elif index:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
        else:
            entries = value if isinstance(value, list) else []
            value = next((entry for entry in entries if entry.get(key) == wanted), None)
    return value


def _layout(resource: Resource) -> tuple[list[Column], Callable[[Obj], Row]]:
    printers = (resource.custom or {}).get("additionalPrinterColumns")
    if printers:

        def row(item: Obj) -> Row:
            cells = []
            for printer in printers:
                value = json_path(item, printer["jsonPath"])
                if printer.get("type") == "date":
                    value = age(value) if value else "<unknown>"
                cells.append(value if value is None or isinstance(value, (int, str, float, bool)) else str(value))
            return cells

        columns = [(p["name"], "string" if p["type"] == "date" else p["type"], p.get("priority", 0)) for p in printers]
        return columns, row
    found = TABLES.get(resource.group_resource)
    return found if found is not None else ([AGE], _each(_age))


def table(resource: Resource, items: list[Obj], include: str = "Metadata") -> Obj:
    columns, row = _layout(resource)
    rows = []
    for item in items:
        entry: Obj = {"cells": [item["metadata"]["name"], *row(item)]}
        if resource.group_resource == "events":
            entry["cells"] = row(item)
        if include == "Object":
            entry["object"] = item
        elif include == "Metadata":
            entry["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            }
        rows.append(entry)
    layout = columns if resource.group_resource == "events" else [NAME, *columns]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            {
                "name": name,
                "type": kind,
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": priority,
            }
            for name, kind, priority in layout
        ],
        "rows": rows,
    }
