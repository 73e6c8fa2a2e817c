"""A client of etcd's JSON gateway."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
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


@dataclass(slots=True)
class Change:
    """One event of a watch; `value` is None for a deletion, `previous` None for a creation."""

    key: str
    revision: int
    value: bytes | None
    previous: bytes | None


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

    async def put_if(self, key: str, value: bytes, mod_revision: int) -> int | None:
        """Write if the key is still at `mod_revision` (0: absent). Returns the new revision, or None if not written.

        When the response is lost the key is read again: every value is unique, so its presence means it was written.
        """
        payload = {
            "compare": [{"key": b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}],
            "success": [{"request_put": {"key": b64(key), "value": b64(value)}}],
        }
        for attempt in range(3):
            try:
                body = await self.call("kv/txn", payload)
            except EtcdError as fault:
                if not fault.transient or attempt == 2:
                    raise
                await asyncio.sleep(0.2)
                continue
            if body.get("succeeded"):
                return int(body["header"]["revision"])
            if attempt == 0:
                return None
            there = await self.get(key)
            return there.mod_revision if there is not None and there.value == value else None
        return None

    async def delete_if(self, key: str, mod_revision: int) -> int | None:
        payload = {
            "compare": [{"key": b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}],
            "success": [{"request_delete_range": {"key": b64(key)}}],
        }
        body = await self.call("kv/txn", payload)
        return int(body["header"]["revision"]) if body.get("succeeded") else None

    async def put(self, key: str, value: bytes, lease: str = "") -> None:
        payload = {"key": b64(key), "value": b64(value)}
        if lease:
            payload["lease"] = lease
        await self._call_with_retries("kv/put", payload, 8)

    async def delete(self, key: str) -> None:
        await self._call_with_retries("kv/deleterange", {"key": b64(key)}, 8)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[list[Change]]:
        request = {
            "create_request": {
                "key": b64(prefix),
                "range_end": b64(prefix_end(prefix)),
                "start_revision": str(start_revision),
                "prev_kv": True,
            }
        }
        async for line in self.client.lines("POST", "/v3/watch", json.dumps(request).encode()):
            message = json.loads(line)
            if "error" in message:
                raise EtcdError(str(message["error"].get("message")))
            result = message["result"]
            if result.get("canceled"):
                reason = result.get("cancel_reason") or "watch cancelled"
                raise EtcdError("compacted" if result.get("compact_revision") else reason)
            changes = []
            for event in result.get("events") or []:
                pair = _pair(event["kv"])
                previous = base64.b64decode(event["prev_kv"].get("value", "")) if "prev_kv" in event else None
                deleted = event.get("type") == "DELETE"
                changes.append(Change(pair.key, pair.mod_revision, None if deleted else pair.value, previous))
            if changes:
                yield changes

    async def grant(self, seconds: int) -> str:
        return str((await self.call("lease/grant", {"TTL": str(seconds)}))["ID"])

    async def keep_alive(self, lease: str) -> bool:
        body = await self.call("lease/keepalive", {"ID": lease}, timeout=3)
        return int(body.get("result", {}).get("TTL", 0)) > 0

    async def revoke(self, lease: str) -> None:
        if lease:
            await self.call("lease/revoke", {"ID": lease}, timeout=1)

    async def create_under_lease(self, key: str, value: str, lease: str) -> bool:
        """Create the key with a lease if it does not exist; True on success."""
        payload = {
            "compare": [{"key": b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {"key": b64(key), "value": b64(value), "lease": lease}}],
        }
        return bool((await self.call("kv/txn", payload)).get("succeeded"))

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
