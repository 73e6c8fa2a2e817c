"""The simulated Kubernetes API on 6443: authentication, routing, and the verbs on stored objects."""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import json
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import yaml

from . import discovery, patch, protobuf, selectors, tables
from .etcd import EtcdError
from .http import Request, Response, json_response, text_response
from .resources import Catalogue, Obj, Resource
from .store import ApiError, Event, Store, conflict, not_found, now

NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?")
ADMINS = {"system:masters", "system:nodes"}
BOOKMARK_SECONDS = 60
NO_CONTAINERS = {
    "log": "logs", "exec": "commands", "attach": "consoles", "portforward": "ports", "proxy": "ports",
    "ephemeralcontainers": "debug containers", "resize": "resources", "binding": "a scheduler's bindings",
}  # fmt: skip


def status(error: ApiError) -> Response:
    body: Obj = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "code": error.code,
    }
    headers = {}
    if error.details:
        body["details"] = error.details
        if "retryAfterSeconds" in error.details:
            headers["Retry-After"] = str(error.details["retryAfterSeconds"])
    response = json_response(body, error.code)
    response.headers.update(headers)
    return response


def success(resource: Resource, item: Obj) -> Obj:
    metadata = item["metadata"]
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata.get("uid", "")}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def invalid(resource: Resource, name: str, field: str, message: str) -> ApiError:
    return ApiError(
        422,
        "Invalid",
        f'{resource.kind} "{name}" is invalid: {field}: {message}',
        name=name,
        group=resource.group,
        kind=resource.kind,
        causes=[{"reason": "FieldValueInvalid", "message": message, "field": field}],
    )


@dataclass(slots=True)
class Target:
    """The resource and object that a path names."""

    resource: Resource
    namespace: str
    name: str
    sub: str


class Api:
    """Handles requests; the store is its only state."""

    def __init__(self, store: Store, catalogue: Catalogue, release: str, address: str) -> None:
        self.store = store
        self.catalogue = catalogue
        self.release = release
        self.address = address
        self.stopping = asyncio.Event()
        self.audit: Callable[[Request, str, int], None] | None = None

    # Entry

    async def handle(self, request: Request) -> Response:
        user = ""
        try:
            user = self._authenticate(request)
            response = await self._route(request, user)
        except ApiError as fault:
            response = status(fault)
        except patch.PatchError as fault:
            response = status(ApiError(422, "Invalid", f"the server rejected our request: {fault}"))
        except selectors.SelectorError as fault:
            response = status(bad_request(str(fault)))
        except EtcdError as fault:
            if fault.compacted:
                response = status(ApiError(410, "Expired", "The provided continue parameter or version is too old."))
            else:
                response = status(ApiError(500, "InternalError", str(fault)))
        if self.audit is not None:
            self.audit(request, user, response.status)
        return response

    def _authenticate(self, request: Request) -> str:
        subject = request.certificate
        if subject is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        user, group = subject.get("commonName", ""), subject.get("organizationName", "")
        if group not in ADMINS:
            raise ApiError(
                403, "Forbidden", f'{request.path} is forbidden: User "{user}" cannot {request.method.lower()} it'
            )
        return user

    async def _route(self, request: Request, user: str) -> Response:
        parts = [part for part in request.path.split("/") if part]
        if not parts:
            paths = ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            return json_response({"paths": paths})
        match parts[0]:
            case "livez" | "readyz" | "healthz":
                return await self._health(parts[0], "verbose" in request.query)
            case "version":
                return json_response(discovery.server_version(self.release))
            case "api" if len(parts) <= 2:
                return self._discover_core(request, parts)
            case "apis" if len(parts) <= 3:
                return self._discover_groups(request, parts)
            case "openapi":
                return self._openapi(request, parts)
            case "api" | "apis":
                return await self._resource(request, parts, user)
        raise ApiError(404, "NotFound", f"the server could not find the requested resource ({request.path})")

    async def _health(self, name: str, verbose: bool) -> Response:
        checks = {"ping": True, "etcd": True, "informer-sync": self.store.synced.is_set()}
        if name != "livez":
            checks["shutdown"] = not self.stopping.is_set()
        try:
            await asyncio.wait_for(self.store.etcd.get("/registry/health"), 2)
        except (EtcdError, TimeoutError):
            checks["etcd"] = False
        good = all(checks.values())
        if good and not verbose:
            return text_response("ok")
        lines = [f"[{'+' if ok else '-'}]{check} {'ok' if ok else 'failed'}" for check, ok in checks.items()]
        lines.append(f"{name} check {'passed' if good else 'failed'}\n")
        return text_response("\n".join(lines), 200 if good else 500)

    # Discovery

    def _discover_core(self, request: Request, parts: list[str]) -> Response:
        if len(parts) == 1:
            if "APIGroupDiscoveryList" in request.headers.get("accept", ""):
                return json_response(discovery.aggregated(self.catalogue, core=True), 200, discovery.AGGREGATED)
            return json_response(discovery.core_versions(self.address))
        found = discovery.resource_list(self.catalogue, "", parts[1])
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return json_response(found)

    def _discover_groups(self, request: Request, parts: list[str]) -> Response:
        if len(parts) == 1:
            if "APIGroupDiscoveryList" in request.headers.get("accept", ""):
                return json_response(discovery.aggregated(self.catalogue, core=False), 200, discovery.AGGREGATED)
            return json_response(discovery.group_list(self.catalogue))
        if len(parts) == 2:
            found = discovery.group(self.catalogue, parts[1])
        else:
            found = discovery.resource_list(self.catalogue, parts[1], parts[2])
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return json_response(found)

    def _openapi(self, request: Request, parts: list[str]) -> Response:
        if parts[1:] == ["v2"]:
            if "protobuf" in request.headers.get("accept", ""):
                kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
                return Response(200, discovery.openapi_v2_bytes(), kind)
            return json_response(discovery.openapi_v2())
        if parts[1:] == ["v3"]:
            return json_response(discovery.openapi_v3_index(self.catalogue))
        found = discovery.openapi_v3(self.catalogue, "/".join(parts[2:])) if parts[1:2] == ["v3"] else None
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return json_response(found)

    # Resources

    def _target(self, parts: list[str]) -> Target:
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3 and (len(rest) > 3 or rest[2] not in ("status", "finalize")):
            namespace, rest = rest[1], rest[2:]
        resource = self.catalogue.find(group, version, rest[0])
        if resource is None or (namespace and not resource.namespaced):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return Target(resource, namespace, rest[1] if len(rest) > 1 else "", "/".join(rest[2:]))

    async def _resource(self, request: Request, parts: list[str], user: str) -> Response:
        target = self._target(parts)
        resource = target.resource
        sub = target.sub.partition("/")[0]
        if sub and sub not in resource.subresources:
            if resource.plural in ("pods", "services", "nodes") and sub in NO_CONTAINERS:
                raise ApiError(
                    501,
                    "NotImplemented",
                    f"the simulation of RKE2 does not support {resource.plural}/{sub}: it runs no containers, so there "
                    f"are no {NO_CONTAINERS[sub]}",
                )
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if resource.virtual:
            return json_response(self._review(request, resource, user), 201)
        if target.name and resource.namespaced and not target.namespace:
            raise bad_request("an empty namespace may not be set when a resource name is provided")
        dry = request.query.get("dryRun") == "All"
        match request.method:
            case "GET" | "HEAD" if not target.name:
                if request.query.get("watch") in ("true", "1"):
                    return await self._watch(request, target)
                return await self._list(request, target)
            case "GET" | "HEAD":
                item = await self.store.get(resource, target.namespace, target.name)
                if target.sub == "scale":
                    return json_response(scale_of(item))
                return self._one(request, resource, item)
            case "POST" if sub == "eviction":
                options = self._options(request).get("deleteOptions") or {}
                dry = dry or "All" in (options.get("dryRun") or [])
                return json_response(await self.evict(resource, target.namespace, target.name, dry=dry), 201)
            case "POST" if not target.name:
                item = self._body(request)
                return self._one(request, resource, await self.create(resource, target.namespace, item, dry=dry), 201)
            case "PUT":
                item = self._body(request)
                return self._one(request, resource, await self.update(target, item, dry=dry))
            case "PATCH":
                return await self._patch(request, target, dry=dry)
            case "DELETE" if target.name:
                options = self._options(request)
                return json_response(await self.delete(resource, target.namespace, target.name, options, dry=dry))
            case "DELETE":
                return await self._delete_collection(request, target, dry=dry)
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _body(self, request: Request) -> Obj:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind == protobuf.CONTENT_TYPE and not request.path.endswith("/status"):
            return protobuf.decode(request.body)
        try:
            if kind.endswith("yaml"):
                item = yaml.safe_load(request.body)
            elif kind.endswith("json") or kind == "":
                item = json.loads(request.body)
            else:
                raise ApiError(
                    415,
                    "UnsupportedMediaType",
                    f"the body of the request was in an unknown format - accepted media types include: "
                    f"application/json, application/yaml (got {kind})",
                )
        except (ValueError, yaml.YAMLError) as fault:
            raise bad_request(f"the object provided is unrecognized (must be of type {kind}): {fault}") from fault
        if not isinstance(item, (dict, list)):
            raise bad_request("the object provided is unrecognized: it is not a map")
        return item  # type: ignore[return-value]  # a JSON patch is a list

    def _options(self, request: Request) -> Obj:
        options: Obj = {}
        if request.body:
            options = self._body(request)
        if "propagationPolicy" in request.query:
            options["propagationPolicy"] = request.query["propagationPolicy"]
        return options

    def _shown(self, resource: Resource, item: Obj) -> Obj:
        return {**item, "kind": resource.kind, "apiVersion": resource.api_version}

    def _one(self, request: Request, resource: Resource, item: Obj, code: int = 200) -> Response:
        accept = request.headers.get("accept", "")
        if "as=Table" in accept and request.method in ("GET", "HEAD"):
            return json_response(tables.table(resource, [item], request.query.get("includeObject", "Metadata")), code)
        return json_response(self._shown(resource, item), code)

    # Lists and watches

    @staticmethod
    def _filter(query: dict[str, str]) -> Callable[[Obj], bool]:
        labels = selectors.parse_labels(query.get("labelSelector", ""))
        fields = selectors.parse_fields(query.get("fieldSelector", ""))
        return lambda item: labels(item["metadata"].get("labels") or {}) and fields(item)

    async def _list(self, request: Request, target: Target) -> Response:
        query, resource = request.query, target.resource
        fits = self._filter(query)
        limit = int(query.get("limit") or 0)
        start, revision = "", 0
        if token := query.get("continue"):
            try:
                start, revision = json.loads(base64.urlsafe_b64decode(token))
            except (ValueError, binascii.Error) as fault:
                raise bad_request("continue key is not valid") from fault
        items, at, count = await self.store.list(
            resource, target.namespace, start=start, limit=limit, revision=revision
        )
        metadata: Obj = {"resourceVersion": str(at)}
        if limit and count > len(items) and items:
            last = items[-1]["metadata"]
            following = resource.key(last.get("namespace", ""), last["name"]) + "\0"
            metadata["continue"] = base64.urlsafe_b64encode(json.dumps([following, at]).encode()).decode()
            metadata["remainingItemCount"] = count - len(items)
        items = [item for item in items if fits(item)]
        accept = request.headers.get("accept", "")
        if "as=Table" in accept:
            answer = tables.table(resource, items, query.get("includeObject", "Metadata"))
            answer["metadata"] = metadata
            return json_response(answer)
        if "as=PartialObjectMetadataList" in accept:
            return json_response(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": [{"metadata": item["metadata"]} for item in items],
                }
            )
        shown = [self._shown(resource, item) for item in items]
        return json_response(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": shown}
        )

    async def _watch(self, request: Request, target: Target) -> Response:
        query, resource = request.query, target.resource
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}"
        fits = self._filter({**query, "fieldSelector": fields})
        seconds = float(query.get("timeoutSeconds") or 1800 + secrets.randbelow(1800))
        as_table = "as=Table" in request.headers.get("accept", "")
        since = int(query.get("resourceVersion") or 0)
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        initial = query.get("sendInitialEvents") in ("true", "1") or since == 0
        if since and not initial and since < self.store.floor:
            raise ApiError(410, "Expired", f"too old resource version: {since} ({self.store.floor})")

        def line(kind: str, item: Obj) -> bytes:
            if kind not in ("BOOKMARK", "ERROR"):
                shown = self._shown(resource, item)
                item = tables.table(resource, [shown], query.get("includeObject", "Metadata")) if as_table else shown
            return json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"

        def bookmark(revision: int, annotations: Obj | None = None) -> bytes:
            metadata: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
            if annotations:
                metadata["annotations"] = annotations
            item = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
            return line("BOOKMARK", item)

        async def events() -> AsyncIterator[bytes]:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + seconds
            stop = asyncio.ensure_future(self.stopping.wait())
            following: asyncio.Future[Event | None] | None = None
            prefix = resource.prefix(target.namespace)
            try:
                async with self.store.subscribe(prefix, 0 if initial else since) as subscription:
                    past = since
                    if initial:
                        items, past, _ = await self.store.list(resource, target.namespace)
                        for item in items:
                            if fits(item):
                                yield line("ADDED", item)
                        if "sendInitialEvents" in query:
                            yield bookmark(past, {"k8s.io/initial-events-end": "true"})
                    while (left := deadline - loop.time()) > 0 and not stop.done():
                        if following is None:
                            following = asyncio.ensure_future(subscription.queue.get())
                        either: set[asyncio.Future[Any]] = {following, stop}
                        left = min(left, BOOKMARK_SECONDS)
                        await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                        if not following.done():
                            if bookmarks and not stop.done():
                                yield bookmark(max(past, self.store.revision))
                            continue
                        event = following.result()
                        following = None
                        if event is None:
                            expired = ApiError(410, "Expired", "the watch cache was reset, list again")
                            yield line("ERROR", json.loads(status(expired).body))
                            return
                        if event.revision > past:
                            past = event.revision
                            if (found := transition(event, fits)) is not None:
                                yield line(*found)
            except ApiError as fault:
                yield line("ERROR", json.loads(status(fault).body))
            finally:
                stop.cancel()
                if following is not None:
                    following.cancel()

        return Response(200, stream=events())

    # Writing

    async def create(self, resource: Resource, namespace: str, item: Obj, *, dry: bool = False) -> Obj:
        if not isinstance(item, dict):
            raise bad_request("the object provided is unrecognized: it is not a map")
        if item.get("kind") not in (None, resource.kind):
            actual = f"{item.get('kind')} in version {item.get('apiVersion')!r}"
            raise bad_request(f"{actual} cannot be handled as a {resource.kind}")
        item = copy.deepcopy(item)
        metadata = item.setdefault("metadata", {})
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise invalid(resource, "", "metadata.name", "Required value: name or generateName is required")
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        name = metadata["name"]
        if resource.group != "rbac.authorization.k8s.io" and not (len(name) <= 253 and NAME.fullmatch(name)):
            raise invalid(
                resource, name, "metadata.name",
                f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
                "characters, '-' or '.', and must start and end with an alphanumeric character",
            )  # fmt: skip
        if resource.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise bad_request("the namespace of the object does not match the namespace sent on the request")
            await self._usable_namespace(namespace)
        else:
            metadata.pop("namespace", None)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for key in ("managedFields", "resourceVersion", "deletionTimestamp", "selfLink"):
            metadata.pop(key, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if "spec" in item:
            metadata["generation"] = 1
        item["apiVersion"], item["kind"] = resource.api_version, resource.kind
        defaults(resource, item)
        if dry:
            if await self.store.find(resource, namespace, name) is not None:
                raise ApiError(409, "AlreadyExists", f'{resource.group_resource} "{name}" already exists')
            return item
        return await self.store.create(resource, item)

    async def _usable_namespace(self, name: str) -> None:
        resource = self.catalogue.find("", "v1", "namespaces")
        assert resource is not None
        found = await self.store.find(resource, "", name)
        if found is None:
            raise not_found(resource, name)
        if found["metadata"].get("deletionTimestamp"):
            ending = f"unable to create new content in namespace {name} because it is being terminated"
            raise ApiError(403, "Forbidden", ending)

    async def update(self, target: Target, item: Obj, *, dry: bool = False) -> Obj:
        resource = target.resource
        metadata = item.get("metadata") or {}
        if metadata.get("name") != target.name:
            raise bad_request(
                f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({target.name})"
            )
        current = await self.store.find(resource, target.namespace, target.name)
        if target.sub == "scale":
            if current is None:
                raise not_found(resource, target.name)
            wanted = {**current, "spec": {**current.get("spec", {}), "replicas": int(item["spec"].get("replicas", 0))}}
            return scale_of(await self._save(resource, current, wanted, "", dry=dry))
        if current is None:
            raise not_found(resource, target.name)
        if (version := metadata.get("resourceVersion")) and version != current["metadata"]["resourceVersion"]:
            raise conflict(resource, target.name)
        return await self._save(resource, current, item, target.sub, dry=dry)

    async def _save(self, resource: Resource, current: Obj, wanted: Obj, sub: str, *, dry: bool = False) -> Obj:
        """Replace `current` by `wanted`, except fields that clients must not change; skipped without changes."""
        new = copy.deepcopy(wanted)
        old = current["metadata"]
        if sub == "status":
            new = {**current, "status": new.get("status", {}), "metadata": {**old, **_described(new)}}
        elif "status" in resource.subresources:
            new.pop("status", None)
            if "status" in current:
                new["status"] = current["status"]
        if resource.kind == "Secret":
            take_string_data(new)
        metadata = new.setdefault("metadata", {})
        if metadata.get("uid") not in (None, "", old["uid"]):
            raise conflict(resource, old["name"])
        for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace", "name"):
            if key in old:
                metadata[key] = old[key]
            else:
                metadata.pop(key, None)
        if "generation" in old:
            metadata["generation"] = old["generation"]
        if _intent(new) != _intent(current):
            metadata["generation"] = old.get("generation", 0) + 1
        metadata["resourceVersion"] = old["resourceVersion"]
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        for key in ("labels", "annotations", "finalizers"):
            if key in metadata and not metadata[key]:
                del metadata[key]
        if dry or new == current:
            return new
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and resource.plural != "namespaces":
            await self.store.remove(resource, current)
            return new
        return await self.store.replace(resource, new, old["resourceVersion"])

    async def _patch(self, request: Request, target: Target, *, dry: bool) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        resource = target.resource
        if kind == "application/apply-patch+yaml":
            item, created = await self._apply(request, target, dry=dry)
            return self._one(request, resource, item, 201 if created else 200)
        change: Any = self._body(request)
        if kind == "application/strategic-merge-patch+json" and resource.custom is not None:
            raise ApiError(415, "UnsupportedMediaType", "strategic merge patch is not supported for custom resources")
        functions: dict[str, Callable[[Any, Any], Any]] = {
            "application/merge-patch+json": patch.merge_patch,
            "application/strategic-merge-patch+json": patch.strategic_merge,
            "application/json-patch+json": patch.json_patch,
        }
        if kind not in functions:
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {kind}")
        for attempt in range(6):
            current = await self.store.get(resource, target.namespace, target.name)
            base = scale_of(current) if target.sub == "scale" else current
            wanted = functions[kind](base, change)
            if target.sub == "scale":
                replicas = int(wanted["spec"].get("replicas", 0))
                wanted = {**current, "spec": {**current.get("spec", {}), "replicas": replicas}}
            version = (wanted.get("metadata") or {}).get("resourceVersion")
            if version and version != current["metadata"]["resourceVersion"]:
                raise conflict(resource, target.name)
            try:
                sub = "" if target.sub == "scale" else target.sub
                saved = await self._save(resource, current, wanted, sub, dry=dry)
                return json_response(scale_of(saved)) if target.sub == "scale" else self._one(request, resource, saved)
            except ApiError as fault:
                if fault.reason != "Conflict" or attempt == 5:
                    raise
        raise conflict(resource, target.name)

    async def _apply(self, request: Request, target: Target, *, dry: bool) -> tuple[Obj, bool]:
        """Server-side apply: merge the manager's fields, remove those that it applied earlier and does not any more.

        Conflicts between managers are not detected; the last one wins, as with force.
        """
        resource = target.resource
        manager = request.query.get("fieldManager", "")
        if not manager:
            raise ApiError(422, "Invalid", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        wanted = self._body(request)
        wanted.setdefault("metadata", {}).pop("managedFields", None)
        configuration = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind")}
        identity = ("name", "namespace", "uid", "resourceVersion")
        configuration["metadata"] = {k: v for k, v in wanted["metadata"].items() if k not in identity}
        entry = {
            "manager": manager,
            "operation": "Apply",
            "apiVersion": resource.api_version,
            "time": now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": patch.fields_of(configuration),
        }
        if target.sub:
            entry["subresource"] = target.sub
        for attempt in range(6):
            current = await self.store.find(resource, target.namespace, target.name)
            if current is None:
                if target.sub:
                    raise not_found(resource, target.name)
                wanted["metadata"].setdefault("name", target.name)
                created = await self.create(resource, target.namespace, wanted, dry=dry)
                if dry:
                    return created, True
                current = created
                new = {**current, "metadata": {**current["metadata"], "managedFields": [entry]}}
                return await self.store.replace(resource, new, current["metadata"]["resourceVersion"]), True
            mine = [
                e for e in current["metadata"].get("managedFields") or []
                if (e.get("manager"), e.get("operation"), e.get("subresource", "")) == (manager, "Apply", target.sub)
            ]  # fmt: skip
            others = [e for e in current["metadata"].get("managedFields") or [] if e not in mine]
            base = current
            if mine:
                base = patch.drop_unapplied(current, mine[0]["fieldsV1"], entry["fieldsV1"])
            merged = patch.strategic_merge(base, configuration)
            if mine and mine[0]["fieldsV1"] == entry["fieldsV1"]:
                entry["time"] = mine[0]["time"]
            merged["metadata"] = {**merged["metadata"], "managedFields": [*others, entry]}
            try:
                return await self._save(resource, current, merged, target.sub, dry=dry), False
            except ApiError as fault:
                if fault.reason != "Conflict" or attempt == 5:
                    raise
        raise conflict(resource, target.name)

    # Deleting

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: Obj | None = None, *, dry: bool = False
    ) -> Obj:
        options = options or {}
        last: Obj | None = None
        for attempt in range(6):
            found = await self.store.find(resource, namespace, name)
            if found is None:
                if last is None:
                    raise not_found(resource, name)
                return success(resource, last)  # Deleted concurrently, before the retry.
            item = last = found
            metadata = item["metadata"]
            for field, wanted in (options.get("preconditions") or {}).items():
                if wanted and metadata.get(field) != wanted:
                    raise ApiError(
                        409, "Conflict", f"Precondition failed: {field} in precondition: {wanted}, "
                        f"{field} in object meta: {metadata.get(field)}", name=name, kind=resource.plural,
                    )  # fmt: skip
            if dry or "All" in (options.get("dryRun") or []):
                return success(resource, item)
            finalizers = list(metadata.get("finalizers") or [])
            policy = options.get("propagationPolicy")
            if policy == "Orphan":
                await self._orphan(metadata["uid"])
            try:
                if resource.plural == "namespaces" and not resource.group:
                    return await self._delete_namespace(resource, item)
                if finalizers:
                    if not metadata.get("deletionTimestamp"):
                        ending = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}
                        item = {**item, "metadata": {**metadata, **ending}}
                        item = await self.store.replace(resource, item, metadata["resourceVersion"])
                    return self._shown(resource, item)
                await self.store.remove(resource, item)
                return success(resource, item)
            except ApiError as fault:
                if fault.reason != "Conflict" or attempt == 5:
                    raise
        raise conflict(resource, name)

    async def _orphan(self, uid: str) -> None:
        for item in [item for item in self.store.objects.values() if owned_by(item, uid)]:
            resource = self.catalogue.by_kind(item["apiVersion"], item["kind"])
            if resource is not None:
                owners = [owner for owner in item["metadata"]["ownerReferences"] if owner.get("uid") != uid]
                changed = {**item, "metadata": {**item["metadata"], "ownerReferences": owners}}
                await self.store.replace(resource, changed, item["metadata"]["resourceVersion"])

    async def _delete_namespace(self, resource: Resource, item: Obj) -> Obj:
        name = item["metadata"]["name"]
        if name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            raise ApiError(403, "Forbidden", f'namespaces "{name}" is forbidden: this namespace may not be deleted')
        if not item["metadata"].get("deletionTimestamp"):
            item = {
                **item,
                "metadata": {**item["metadata"], "deletionTimestamp": now()},
                "status": {"phase": "Terminating"},
            }
            item = await self.store.replace(resource, item, item["metadata"]["resourceVersion"])
        held = False
        for other in self.catalogue.all():
            if not other.namespaced or other.virtual:
                continue
            for content in (await self.store.list(other, name))[0]:
                held = held or bool(content["metadata"].get("finalizers"))
                await self._delete_present(other, name, content["metadata"]["name"])
        left = None if held else await self.store.find(resource, "", name)
        if left is not None:
            await self.store.remove(resource, left)
        return self._shown(resource, item)

    async def _delete_present(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete an object that may have been deleted meanwhile."""
        try:
            await self.delete(resource, namespace, name)
        except ApiError as fault:
            if fault.code != 404:
                raise

    async def _delete_collection(self, request: Request, target: Target, *, dry: bool) -> Response:
        fits = self._filter(request.query)
        items, at, _ = await self.store.list(target.resource, target.namespace)
        chosen = [item for item in items if fits(item)]
        options = self._options(request)
        options.pop("preconditions", None)
        for item in chosen:
            metadata = item["metadata"]
            try:
                await self.delete(target.resource, metadata.get("namespace", ""), metadata["name"], options, dry=dry)
            except ApiError as fault:
                if fault.code != 404:
                    raise
        return json_response(
            {
                "kind": f"{target.resource.kind}List",
                "apiVersion": target.resource.api_version,
                "metadata": {"resourceVersion": str(at)},
                "items": [self._shown(target.resource, item) for item in chosen],
            }
        )

    async def evict(self, resource: Resource, namespace: str, name: str, *, dry: bool = False) -> Obj:
        """Delete a pod unless a PodDisruptionBudget allows no disruption."""
        pod = await self.store.get(resource, namespace, name)
        budgets = self.catalogue.find("policy", "v1", "poddisruptionbudgets")
        assert budgets is not None
        labels = pod["metadata"].get("labels") or {}
        pods = (await self.store.list(resource, namespace))[0]
        for budget in (await self.store.list(budgets, namespace))[0]:
            spec = budget.get("spec", {})
            if not selectors.match_object(spec.get("selector"), labels):
                continue
            covered = [
                other
                for other in pods
                if selectors.match_object(spec.get("selector"), other["metadata"].get("labels") or {})
            ]
            healthy = sum(1 for p in covered if tables.condition(p, "Ready") == "True")
            if tables.condition(pod, "Ready") == "True" and allowed_disruptions(spec, len(covered), healthy) < 1:
                raise ApiError(
                    429, "TooManyRequests",
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    causes=[{
                        "reason": "DisruptionBudget",
                        "message": f"The disruption budget {budget['metadata']['name']} does not allow another "
                        f"disruption: {len(covered)} pods, {healthy} healthy",
                    }],
                )  # fmt: skip
        if not dry:
            await self.delete(resource, namespace, name)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _review(self, request: Request, resource: Resource, user: str) -> Obj:
        """Access reviews: every authenticated user is an administrator."""
        item = self._body(request) if request.body else {}
        answer: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
        if resource.kind == "SelfSubjectReview":
            groups = [(request.certificate or {}).get("organizationName", ""), "system:authenticated"]
            answer["status"] = {"userInfo": {"username": user, "groups": groups}}
        elif resource.kind == "SelfSubjectRulesReview":
            rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            answer["status"] = {
                "resourceRules": [rule],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
        else:
            answer["spec"] = item.get("spec", {})
            answer["status"] = {"allowed": True, "reason": "the simulation has administrators only"}
        return answer


def _described(item: Obj) -> Obj:
    """Labels and annotations, which a status update may change."""
    metadata = item.get("metadata") or {}
    return {key: metadata[key] for key in ("labels", "annotations", "managedFields") if key in metadata}


def _intent(item: Obj) -> Obj:
    return (
        {key: value for key, value in item.items() if key not in ("metadata", "status", "apiVersion", "kind")}
        if ("spec" in item)
        else {}
    )


def owned_by(item: Obj, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or [])


def transition(event: Event, fits: Callable[[Obj], bool]) -> tuple[str, Obj] | None:
    """The event of a change for a watch with a selector."""
    before = event.previous is not None and fits(event.previous)
    after = event.object is not None and fits(event.object)
    if after:
        assert event.object is not None
        return ("MODIFIED" if before else "ADDED"), event.object
    if before:
        assert event.previous is not None
        last = event.object or event.previous
        return "DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(event.revision)}}
    return None


def share(value: Any, total: int) -> int:
    """A count or a percentage (rounded up, as Kubernetes does for budgets)."""
    text = str(value)
    return -(-int(text[:-1]) * total // 100) if text.endswith("%") else int(text)


def allowed_disruptions(spec: Obj, total: int, healthy: int) -> int:
    if spec.get("maxUnavailable") is not None:
        wanted = total - share(spec["maxUnavailable"], total)
    else:
        wanted = share(spec.get("minAvailable", 1), total)
    return max(0, healthy - wanted)


SCALE_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(item: Obj) -> Obj:
    metadata = item["metadata"]
    labels = (item.get("spec", {}).get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in SCALE_METADATA if key in metadata},
        "spec": {"replicas": item.get("spec", {}).get("replicas", 1)},
        "status": {
            "replicas": item.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        },
    }  # fmt: skip


def take_string_data(secret: Obj) -> None:
    text = secret.pop("stringData", None) or {}
    data = {key: base64.b64encode(str(value).encode()).decode() for key, value in text.items()}
    if data:
        secret["data"] = {**(secret.get("data") or {}), **data}


STATUS_COUNTS = {
    "DaemonSet": ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"),
    "PodDisruptionBudget": ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"),
    "ReplicaSet": ("replicas",),
    "ReplicationController": ("replicas",),
    "StatefulSet": ("replicas",),
}
"""Required fields of a status, which typed clients validate."""


def defaults(resource: Resource, item: Obj) -> None:
    """Set the defaults that clients rely on. A status is dropped on creation, except for nodes and pods."""
    if "status" in resource.subresources and resource.kind not in ("Node", "Pod"):
        item.pop("status", None)
        if resource.custom is None:
            item["status"] = dict.fromkeys(STATUS_COUNTS.get(resource.kind, ()), 0)
    spec = item.setdefault("spec", {}) if resource.kind in ("Pod", "Deployment", "Namespace", "Node", "Service") else {}
    match resource.kind:
        case "Namespace":
            item["status"] = {"phase": "Active"}
            spec.setdefault("finalizers", ["kubernetes"])
            item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"]["name"]
        case "Pod":
            item.setdefault("status", {"phase": "Pending"})
            spec.setdefault("restartPolicy", "Always")
        case "Deployment" | "StatefulSet" | "ReplicaSet":
            item.setdefault("spec", {}).setdefault("replicas", 1)
        case "Service":
            spec.setdefault("type", "ClusterIP")
            item["status"] = {"loadBalancer": {}}
        case "Secret":
            item.setdefault("type", "Opaque")
            take_string_data(item)
        case "CustomResourceDefinition":
            names = item["spec"]["names"]
            names.setdefault("singular", names["kind"].lower())
            names.setdefault("listKind", f"{names['kind']}List")
            item["status"] = {
                "acceptedNames": names,
                "storedVersions": [version["name"] for version in item["spec"]["versions"] if version.get("storage")],
                "conditions": [
                    {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now()}
                    for kind, reason in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
                ],
            }
