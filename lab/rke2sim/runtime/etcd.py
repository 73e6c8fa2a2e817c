"""A client of etcd's JSON gateway."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

from .http import Client

TRANSIENT = (
    "leader changed", "no leader", "timed out", "deadline exceeded", "unavailable", "not capable", "connection",
    "too many req",
)  # fmt: skip


class EtcdError(Exception):
    """etcd returned an error; `transient` ones end when a new leader is elected."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def transient(self) -> bool:
        return any(word in str(self).lower() for word in TRANSIENT)

    @property
    def compacted(self) -> bool:
        return "compacted" in str(self) or "future revision" in str(self)


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def prefix_end(prefix: str) -> str:
    """The first key after all keys with this prefix; the prefixes end in ASCII."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


@dataclass(slots=True)
class KeyValue:
    key: str
    value: bytes
    mod_revision: int
    create_revision: int


def _pair(raw: dict[str, Any]) -> KeyValue:
    return KeyValue(
        base64.b64decode(raw["key"]).decode(),
        base64.b64decode(raw.get("value", "")),
        int(raw.get("mod_revision", 0)),
        int(raw.get("create_revision", 0)),
    )


class Etcd:
    """One etcd endpoint. Reads are linearizable by default."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, path: str, payload: dict[str, Any], timeout: float = 8) -> dict[str, Any]:
        try:
            answer = await self.client.request("POST", f"/v3/{path}", json.dumps(payload).encode(), timeout=timeout)
        except TimeoutError as fault:
            raise EtcdError("etcdserver: request timed out") from fault
        except OSError as fault:
            raise EtcdError(f"etcd connection: {fault}") from fault
        try:
            body = answer.json()
        except ValueError:
            body = {"message": answer.body[:300].decode(errors="replace").strip()}
        if answer.status != 200:
            raise EtcdError(str(body.get("message") or body.get("error")), int(body.get("code") or answer.status))
        assert isinstance(body, dict)
        return body

    async def _call_with_retries(self, path: str, payload: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Retry an idempotent call while a new leader is being elected."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            try:
                return await self.call(path, payload, timeout=max(1.0, deadline - loop.time()))
            except EtcdError as fault:
                if not fault.transient or loop.time() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def get(self, key: str, *, serializable: bool = False) -> KeyValue | None:
        body = await self._call_with_retries("kv/range", {"key": b64(key), "serializable": serializable}, 8)
        pairs = body.get("kvs") or []
        return _pair(pairs[0]) if pairs else None

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> tuple[list[KeyValue], int, int]:
        """Pairs under a prefix, their revision, and the total number of pairs from `start` on."""
        payload: dict[str, Any] = {"key": b64(start or prefix), "range_end": b64(prefix_end(prefix))}
        if limit:
            payload["limit"] = limit
        if revision:
            payload["revision"] = revision
        body = await self._call_with_retries("kv/range", payload, 8)
        at = revision or int(body["header"]["revision"])
        return [_pair(raw) for raw in body.get("kvs") or []], at, int(body.get("count", 0))

    async def put(self, key: str, value: bytes) -> None:
        await self._call_with_retries("kv/put", {"key": b64(key), "value": b64(value)}, 8)

    async def members(self, *, linearizable: bool = False) -> list[dict[str, Any]]:
        body = await self.call("cluster/member/list", {"linearizable": linearizable}, timeout=5)
        return list(body.get("members") or [])

    async def add_learner(self, peer_url: str) -> dict[str, Any]:
        body = await self.call("cluster/member/add", {"peerURLs": [peer_url], "isLearner": True})
        assert isinstance(body["member"], dict)
        return body["member"]

    async def promote(self, member: str) -> None:
        await self.call("cluster/member/promote", {"ID": member})

    async def remove(self, member: str) -> None:
        await self.call("cluster/member/remove", {"ID": member})

    async def update_peer(self, member: str, peer_url: str) -> None:
        await self.call("cluster/member/update", {"ID": member, "peerURLs": [peer_url]})

    async def status(self) -> dict[str, Any]:
        return await self.call("maintenance/status", {}, timeout=3)
