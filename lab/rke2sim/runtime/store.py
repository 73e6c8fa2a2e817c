"""Objects in etcd, and a cache that follows etcd and serves watches and controllers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import log, tokens
from .etcd import Etcd, EtcdError, KeyValue
from .resources import Catalogue, Obj, Resource

ROOT = "/registry/"
CRD_PREFIX = "/registry/apiextensions.k8s.io/customresourcedefinitions/-/"
SECRET_PREFIX = "/registry/core/secrets/"
HISTORY = 4000
"""Number of changes in memory; a watch from an older revision gets 410 Gone."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ApiError(Exception):
    """An error response: a Kubernetes Status."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details


def not_found(resource: Resource, name: str) -> ApiError:
    message = f'{resource.group_resource} "{name}" not found'
    return ApiError(404, "NotFound", message, name=name, group=resource.group, kind=resource.plural)


def conflict(resource: Resource, name: str) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.group_resource} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        name=name,
        group=resource.group,
        kind=resource.plural,
    )


@dataclass(slots=True)
class Event:
    revision: int
    key: str
    object: Obj | None
    previous: Obj | None


@dataclass(slots=True, eq=False)
class Subscription:
    prefix: str
    queue: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    """None means that the cache was rebuilt and the subscriber must list again."""


class Store:
    """Typed access to the objects. Reads and writes go to etcd; `objects` is the cache, which lags."""

    def __init__(self, etcd: Etcd, catalogue: Catalogue, secret_key: str, provider: str = "aescbc") -> None:
        self.etcd = etcd
        self.catalogue = catalogue
        self.objects: dict[str, Obj] = {}
        self.revision = 0
        self.floor = 0
        self.synced = asyncio.Event()
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()
        self._secret_key = secret_key
        self._mark = f"k8s:enc:{provider}:v1:{provider}key:".encode()

    # Encoding

    def encode(self, key: str, item: Obj) -> bytes:
        stored = {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "resourceVersion"}}
        data = json.dumps(stored, separators=(",", ":")).encode()
        if key.startswith(SECRET_PREFIX):
            return self._mark + tokens.seal(self._secret_key, data, rounds=1)
        return data

    def decode(self, key: str, value: bytes, revision: int) -> Obj:
        if key.startswith(SECRET_PREFIX) and value.startswith(b"k8s:enc:"):
            sealed = value.split(b":", 5)[5]
            data = tokens.unseal(self._secret_key, sealed, rounds=1)
            if data is None:
                raise ApiError(500, "InternalError", f"{key} is encrypted with a key that this server does not have")
            value = data
        item: Obj = json.loads(value)
        item["metadata"]["resourceVersion"] = str(revision)
        return item

    def _decoded(self, pair: KeyValue) -> Obj:
        return self.decode(pair.key, pair.value, pair.mod_revision)

    # Reading and writing

    async def find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        pair = await self.etcd.get(resource.key(namespace, name))
        return None if pair is None else self._decoded(pair)

    async def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        item = await self.find(resource, namespace, name)
        if item is None:
            raise not_found(resource, name)
        return item

    async def list(
        self, resource: Resource, namespace: str = "", *, start: str = "", limit: int = 0, revision: int = 0
    ) -> tuple[list[Obj], int, int]:
        pairs, at, count = await self.etcd.range(
            resource.prefix(namespace), start=start, limit=limit, revision=revision
        )
        return [self._decoded(pair) for pair in pairs], at, count

    async def create(self, resource: Resource, item: Obj) -> Obj:
        metadata = item["metadata"]
        key = resource.key(metadata.get("namespace", ""), metadata["name"])
        revision = await self.etcd.put_if(key, self.encode(key, item), 0)
        if revision is None:
            raise ApiError(
                409,
                "AlreadyExists",
                f'{resource.group_resource} "{metadata["name"]}" already exists',
                name=metadata["name"],
                group=resource.group,
                kind=resource.plural,
            )
        return {**item, "metadata": {**metadata, "resourceVersion": str(revision)}}

    async def replace(self, resource: Resource, item: Obj, revision: str) -> Obj:
        metadata = item["metadata"]
        key = resource.key(metadata.get("namespace", ""), metadata["name"])
        written = await self.etcd.put_if(key, self.encode(key, item), int(revision))
        if written is None:
            raise conflict(resource, metadata["name"])
        return {**item, "metadata": {**metadata, "resourceVersion": str(written)}}

    async def remove(self, resource: Resource, item: Obj) -> None:
        metadata = item["metadata"]
        key = resource.key(metadata.get("namespace", ""), metadata["name"])
        if await self.etcd.delete_if(key, int(metadata["resourceVersion"])) is None:
            raise conflict(resource, metadata["name"])

    # The cache

    def cached(self, resource: Resource, namespace: str = "") -> Iterator[Obj]:
        prefix = resource.prefix(namespace)
        return iter([item for key, item in self.objects.items() if key.startswith(prefix)])

    async def follow(self) -> None:
        """Keep the cache current. It is rebuilt when etcd has compacted the changes since its revision."""
        while True:
            try:
                await self._load()
                while True:
                    try:
                        async for changes in self.etcd.watch(ROOT, self.revision + 1):
                            for change in changes:
                                self._take(change.key, change.revision, change.value)
                    except (OSError, EtcdError) as fault:
                        if isinstance(fault, EtcdError) and fault.compacted:
                            log.warning(f"etcd has compacted the changes since {self.revision}, listing again")
                            break
                    await asyncio.sleep(0.3)
            except EtcdError as fault:
                log.warning(f"cannot read from etcd: {fault}")
                await asyncio.sleep(1)

    async def _load(self) -> None:
        pairs, at, _ = await self.etcd.range(ROOT)
        self.objects = {pair.key: self._decoded(pair) for pair in pairs}
        for pair in pairs:
            if pair.key.startswith(CRD_PREFIX):
                self.catalogue.define(pair.key.removeprefix(CRD_PREFIX), pair.value)
        self.revision = self.floor = at
        self._history.clear()
        for subscription in self._subscriptions:
            subscription.queue.put_nowait(None)
        self.synced.set()

    def _take(self, key: str, revision: int, value: bytes | None) -> None:
        previous = self.objects.get(key)
        if value is None:
            item = None
            self.objects.pop(key, None)
        else:
            item = self.objects[key] = self.decode(key, value, revision)
        if key.startswith(CRD_PREFIX):
            self.catalogue.define(key.removeprefix(CRD_PREFIX), value)
        if len(self._history) == HISTORY:
            self.floor = self._history[0].revision
        self.revision = revision
        event = Event(revision, key, item, previous)
        self._history.append(event)
        for subscription in self._subscriptions:
            if key.startswith(subscription.prefix):
                subscription.queue.put_nowait(event)

    @contextlib.asynccontextmanager
    async def subscribe(self, prefix: str, since: int = 0) -> AsyncIterator[Subscription]:
        """Changes under a prefix; with `since` also those in memory after that revision."""
        subscription = Subscription(prefix)
        if since:
            if since < self.floor:
                raise ApiError(410, "Expired", f"too old resource version: {since} ({self.floor})")
            for event in self._history:
                if event.revision > since and event.key.startswith(prefix):
                    subscription.queue.put_nowait(event)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
