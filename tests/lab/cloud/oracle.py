"""Validates every response against Hetzner's OpenAPI document: a layer around the application under test.

The document is of July 2026 (`trim_openapi.py`); later changes of the API are in this module.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

from jsonschema import Draft202012Validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.lab.cloud.trim_openapi import TRIMMED

HEADERS = {
    "x-correlation-id": re.compile(r"[0-9a-f]{16,}"),
    "ratelimit-limit": re.compile(r"\d+"),
    "ratelimit-remaining": re.compile(r"\d+"),
    "ratelimit-reset": re.compile(r"\d+"),
}

STATUS = {
    "json_error": 400, "unauthorized": 401, "resource_limit_exceeded": 403, "not_found": 404,
    "firewall_resource_not_found": 404, "method_not_allowed": 405, "uniqueness_error": 409, "conflict": 409,
    "deprecated_api_endpoint": 410, "resource_unavailable": 412, "primary_ip_version_mismatch": 412,
    "source_port_already_used": 412, "locked": 423,
    "protected": 423, "rate_limit_exceeded": 429, "server_error": 500, "bad_gateway": 502, "unavailable": 503,
    "timeout": 504,
}  # fmt: skip
"""Codes with a status of their own; all others are 422, and `unsupported_error` of missing endpoints is 501."""

PAGINATION = {"page", "per_page", "previous_page", "next_page", "last_page", "total_entries"}

MEMBER = {
    "type": "object",
    "required": ["id", "type", "ip", "alias_ips", "subnet", "status"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer"},
        "type": {"enum": ["server", "load_balancer"]},
        "ip": {"type": "string"},
        "alias_ips": {"type": "array", "items": {"type": "string"}},
        "subnet": {"type": "string"},
        "status": {"enum": ["ok", "attaching", "detaching", "updating", "error"]},
    },
}


class Oracle:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.violations: list[str] = []
        self.seen: set[str] = set()
        """Operations with a successful response, for example `GET /servers/{id}`."""
        document = json.loads(gzip.decompress(TRIMMED.read_bytes()))
        self._since_july(document)
        self.operations: dict[str, dict[str, str | None]] = document["answers"]
        self._validators = {
            name: Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": document["$defs"]})
            for name in document["$defs"]
        }
        # Literal parts before parameters: /servers/actions is not a server.
        self._paths = sorted(self.operations, key=lambda operation: operation.replace("{", "~"))
        self._patterns = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", operation)), operation) for operation in self._paths]

    @staticmethod
    def _since_july(document: dict[str, Any]) -> None:
        definitions = document["$defs"]
        for schema in definitions.values():
            properties = schema.get("properties", {})
            if "assignee_type" in properties:
                properties["assignee_type"] = {"enum": ["server", "load_balancer", "unassigned"]}
            for described in properties.values():
                # The document has nullable values whose lists of values lack null.
                if "enum" in described and "null" in described.get("type", ()):
                    described["enum"] = [*described["enum"], None]
            if "os_flavor" in properties:
                schema["required"] = [*schema["required"], "deprecation"]
        definitions["members"] = {
            "type": "object",
            "required": ["members", "meta"],
            "properties": {"members": {"type": "array", "items": MEMBER}},
        }
        answers = document["answers"]
        answers["GET /networks/{id}/members"] = {"200": "members"}
        answers["DELETE /load_balancers/{id}"] = answers["POST /load_balancers/{id}/actions/change_protection"]

    def operation(self, method: str, path: str) -> str | None:
        requested = f"{method} {path.removeprefix('/v1')}"
        return next((operation for pattern, operation in self._patterns if pattern.fullmatch(requested)), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._check(scope["method"], scope["path"], start, bytes(body))
            await send(message)

        await self._app(scope, receive, watched)

    def _check(self, method: str, path: str, start: dict[str, Any], body: bytes) -> None:
        status = start["status"]
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}

        def wrong(fault: str) -> None:
            self.violations.append(f"{method} {path} → {status}: {fault}; {body[:2000].decode()}")

        for name, pattern in HEADERS.items():
            if not pattern.fullmatch(headers.get(name, "")):
                wrong(f"header {name} is {headers.get(name)!r}")
        if path.startswith("/_lab/") or method == "HEAD":
            return
        if status >= 400:
            self._check_error(status, json.loads(body), wrong)
            return
        operation = self.operation(method, path)
        if operation is None:
            return wrong("the operation is not in Hetzner's document")
        self.seen.add(operation)
        if str(status) not in self.operations[operation]:
            return wrong(f"the document has the statuses {sorted(self.operations[operation])}")
        name = self.operations[operation][str(status)]
        if name is None:
            if body:
                wrong("unexpected body")
            return None
        payload = json.loads(body)
        for fault in self._validators[name].iter_errors(payload):
            wrong(f"{fault.json_path}: {fault.message[:300]}")
        if "meta" in payload:
            if set(payload["meta"]["pagination"]) != PAGINATION:
                wrong("pagination has unexpected keys")
            if 'rel="last"' not in headers.get("link", ""):
                wrong("no Link header")
        return None

    @staticmethod
    def _check_error(status: int, payload: dict[str, Any], wrong: Any) -> None:
        error = payload.get("error", {})
        if set(payload) != {"error"} or set(error) != {"code", "message", "details"} or not error["message"]:
            return wrong("invalid error object")
        expected = STATUS.get(error["code"], 422)
        if status != expected and (status, error["code"]) != (501, "unsupported_error"):
            wrong(f"{error['code']} comes with {expected}")
        return None
