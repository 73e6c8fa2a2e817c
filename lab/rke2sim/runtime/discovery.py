"""API discovery: groups, resources, OpenAPI and the version."""

from __future__ import annotations

import hashlib
import json
import platform

from .resources import VERBS, Catalogue, Obj, Resource

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
SUBRESOURCE_KINDS = {"scale": ("autoscaling", "v1", "Scale"), "eviction": ("policy", "v1", "Eviction")}
SUBRESOURCE_VERBS = {"eviction": ["create"], "status": ["get", "patch", "update"], "scale": ["get", "patch", "update"]}


def verbs(resource: Resource) -> list[str]:
    return ["create"] if resource.virtual else list(VERBS)


def server_version(release: str) -> Obj:
    major, minor, *_ = release.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": release,
        "gitCommit": "simulation",
        "gitTreeState": "clean",
        "buildDate": "2026-08-04T00:00:00Z",
        "goVersion": f"simulation (python {platform.python_version()})",
        "compiler": "simulation",
        "platform": "linux/amd64",
    }


def core_versions(address: str) -> Obj:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": f"{address}:6443"}],
    }


def _group(name: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def group_list(catalogue: Catalogue) -> Obj:
    groups = [_group(name, versions) for name, versions in catalogue.versions().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(catalogue: Catalogue, name: str) -> Obj | None:
    versions = catalogue.versions().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions and name else None


def resource_list(catalogue: Catalogue, name: str, version: str) -> Obj | None:
    resources = catalogue.of(name, version)
    if not resources:
        return None
    entries: list[Obj] = []
    for item in resources:
        entry: Obj = {
            "name": item.plural,
            "singularName": item.singular,
            "namespaced": item.namespaced,
            "kind": item.kind,
            "verbs": verbs(item),
        }
        if item.short_names:
            entry["shortNames"] = list(item.short_names)
        if item.categories:
            entry["categories"] = list(item.categories)
        entries.append(entry)
        for sub in item.subresources:
            entry = {
                "name": f"{item.plural}/{sub}",
                "singularName": "",
                "namespaced": item.namespaced,
                "kind": item.kind,
                "verbs": SUBRESOURCE_VERBS.get(sub, ["update"]),
            }
            if sub in SUBRESOURCE_KINDS:
                entry["group"], entry["version"], entry["kind"] = SUBRESOURCE_KINDS[sub]
            entries.append(entry)
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def aggregated(catalogue: Catalogue, *, core: bool) -> Obj:
    """Aggregated discovery (apidiscovery.k8s.io/v2)."""
    items = []
    for name, versions in catalogue.versions().items():
        if core != (name == ""):
            continue
        entries = []
        for version in versions:
            resources = []
            for item in catalogue.of(name, version):
                entry: Obj = {
                    "resource": item.plural,
                    "responseKind": {"group": item.group, "version": item.version, "kind": item.kind},
                    "scope": "Namespaced" if item.namespaced else "Cluster",
                    "singularResource": item.singular,
                    "verbs": verbs(item),
                }
                if item.short_names:
                    entry["shortNames"] = list(item.short_names)
                if item.categories:
                    entry["categories"] = list(item.categories)
                subs = []
                for sub in item.subresources:
                    kind = SUBRESOURCE_KINDS.get(sub, (item.group, item.version, item.kind))
                    subs.append(
                        {
                            "subresource": sub,
                            "responseKind": dict(zip(("group", "version", "kind"), kind, strict=True)),
                            "verbs": SUBRESOURCE_VERBS.get(sub, ["update"]),
                        }
                    )
                if subs:
                    entry["subresources"] = subs
                resources.append(entry)
            entries.append({"version": version, "resources": resources, "freshness": "Current"})
        items.append({"metadata": {"name": name} if name else {}, "versions": entries})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def openapi_v2_bytes() -> bytes:
    """An empty Swagger 2.0 document in protobuf, the only format that kubectl accepts."""

    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    info = text(1, b"Kubernetes") + text(2, b"simulation")
    return text(1, b"2.0") + text(2, info) + text(8, b"")


def openapi_v2() -> Obj:
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "simulation"}, "paths": {}, "definitions": {}}


def _gv_paths(catalogue: Catalogue) -> dict[str, tuple[str, str]]:
    result = {}
    for name, versions in catalogue.versions().items():
        for version in versions:
            result[f"apis/{name}/{version}" if name else f"api/{version}"] = (name, version)
    return result


def openapi_v3_index(catalogue: Catalogue) -> Obj:
    paths = {}
    for path, (name, version) in _gv_paths(catalogue).items():
        described = json.dumps([[item.plural, bool(item.custom)] for item in catalogue.of(name, version)])
        mark = hashlib.sha256(described.encode()).hexdigest()[:32].upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={mark}"}
    return {"paths": paths}


def openapi_v3(catalogue: Catalogue, path: str) -> Obj | None:
    """Paths and open schemas of one group version, so that clients leave the validation to the server.

    Strategic merge is not advertised on purpose: kubectl then uses the merge keys of its built-in types.
    """
    found = _gv_paths(catalogue).get(path)
    if found is None:
        return None
    group_name, version = found
    paths: Obj = {}
    schemas: Obj = {}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for item in catalogue.of(group_name, version):
        gvk = {"group": item.group, "version": item.version, "kind": item.kind}
        scope = "/namespaces/{namespace}" if item.namespaced else ""
        base = f"/{path}{scope}/{item.plural}"
        name = f"{group_name or 'core'}.{version}.{item.kind}".replace("-", "_")
        custom = ((item.custom or {}).get("schema") or {}).get("openAPIV3Schema")
        schemas[name] = {
            "type": "object",
            "description": f"{item.kind} as the simulation stores it: fields are not validated.",
            "properties": {
                "spec": free,
                "status": free,
                **((custom or {}).get("properties") or {}),
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
            "x-kubernetes-group-version-kind": [gvk],
            "x-kubernetes-preserve-unknown-fields": True,
        }
        reference = {"$ref": f"#/components/schemas/{name}"}
        parameters = [
            {"name": word, "in": "query", "schema": {"type": "string"}}
            for word in ("dryRun", "fieldManager", "fieldValidation")
        ]

        def operation(action: str, types: list[str], *, gvk: Obj = gvk, reference: Obj = reference,
                      parameters: list[Obj] = parameters) -> Obj:  # fmt: skip
            return {
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk,
                "parameters": parameters,
                "requestBody": {"content": {kind: {"schema": reference} for kind in types}},
                "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            }

        patches = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
        paths[base] = {"post": operation("post", ["application/json"])}
        if not item.virtual:
            paths[f"{base}/{{name}}"] = {
                "put": operation("put", ["application/json"]),
                "patch": operation("patch", patches),
            }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "simulation"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
