"""From request to response: token, faults, one transaction, a short wait for its jobs, headers."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import anyio
from anyio.to_thread import run_sync
from pydantic_core import to_json
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab.cloud import labels
from lab.cloud.domain import load_balancers
from lab.cloud.domain.objects import Action, Job, Labels, Object
from lab.cloud.domain.view import View
from lab.cloud.errors import (
    ApiError,
    InvalidInput,
    JsonError,
    MethodNotAllowed,
    NotFound,
    RateLimitExceeded,
    ServerError,
    ServiceError,
    Unauthorized,
)
from lab.cloud.pagination import MAX_PER_PAGE, Page
from lab.cloud.store import Clock, Transaction
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire.base import Body, parse
from lab.machines.base import MachineError

if TYPE_CHECKING:
    from lab.cloud.app import Cloud

log = logging.getLogger("lab.cloud")

TRUE = frozenset({"true", "1", "yes"})
"""Values of a query key that is a boolean, in lower case."""
SETTLE_SECONDS = 0.3
"""How long a change waits for its own jobs, so that most actions have succeeded in the first response."""
POLL_SECONDS = 1.5
"""How long a request for a running action waits for its end: Ansible polls only every two seconds."""


@dataclass(slots=True)
class Reply:
    payload: dict[str, Any] | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0
    """How long to wait for the running actions of the payload."""
    after_commit: Callable[[], dict[str, Any]] | None = None
    """Called on the machines after the transaction; the result is merged into the payload."""

    def response(self) -> Response:
        if self.payload is None:
            return Response(status_code=self.status, headers=self.headers)
        return Response(to_json(self.payload), self.status, self.headers, "application/json")


class Call:
    """One request inside its transaction."""

    def __init__(self, cloud: Cloud, tx: Transaction, request: Request, data: bytes) -> None:
        self.cloud = cloud
        self.tx = tx
        self.request = request
        self._data = data

    @property
    def query(self) -> QueryParams:
        return self.request.query_params

    @cached_property
    def view(self) -> View:
        return View(self.tx)

    def body[B: Body](self, model: type[B]) -> B:
        try:
            data = json.loads(self._data) if self._data.strip() else {}
        except ValueError:
            raise JsonError from None
        return parse(model, data)

    def find[T: Object](self, kind: type[T], parameter: str = "id") -> T:
        text = self.request.path_params[parameter]
        found = self.tx.get(kind, int(text)) if text.isdecimal() else None
        if found is None and kind.HAS_NAME_IN_PATH:
            found = next((obj for obj in self.tx.all(kind) if getattr(obj, "name", None) == text), None)
        if found is None:
            raise NotFound.of(kind.TYPE, text)
        return found

    def reply_with_action(self, action: Action, **more: Any) -> Reply:
        return Reply({"action": action_wire.shape(action), **more}, 201)

    def reply_with_actions(self, actions: Iterable[Action], status: int = 201, **more: Any) -> Reply:
        return Reply({**more, "actions": [action_wire.shape(action) for action in actions]}, status)

    def listing(
        self,
        key: str,
        rows: Sequence[Any],
        shape: Callable[[Any], dict[str, Any]],
        sort: Sequence[str] = ("id", "name", "created"),
        equal: Mapping[str, Callable[[Any], object]] | None = None,
        one_of: Mapping[str, tuple[Callable[[Any], str], frozenset[str]]] | None = None,
        labels_of: Callable[[Any], Labels] | None = lambda row: row.labels,
        max_per_page: int = MAX_PER_PAGE,
    ) -> Reply:
        """A page of `rows`, filtered and sorted by the query.

        `equal`: query keys that must equal a value; `one_of`: repeatable query keys with their allowed values.
        """
        for name, value_of in (equal or {}).items():
            if wanted := self.query.get(name):
                rows = [row for row in rows if str(value_of(row)) == wanted]
        for name, (value_of, allowed) in (one_of or {}).items():
            if requested := frozenset(self.query.getlist(name)):
                if not requested <= allowed:
                    raise InvalidInput.field(name, f"{sorted(requested - allowed)} are not among {sorted(allowed)}")
                rows = [row for row in rows if value_of(row) in requested]
        if labels_of and (selector := self.query.get("label_selector", "").strip()):
            try:
                matches = labels.parse(selector)
            except ValueError as error:
                raise InvalidInput.field("label_selector", str(error)) from None
            rows = [row for row in rows if matches(labels_of(row))]
        rows = self._sorted(rows, sort)
        page = Page.cut(rows, self.query.get("page"), self.query.get("per_page"), max_per_page)
        payload = {key: [shape(row) for row in page.rows], "meta": page.meta()}
        return Reply(payload, headers={"Link": page.link(self.request.url)})

    def _sorted(self, rows: Sequence[Any], fields: Sequence[str]) -> Sequence[Any]:
        orders = [order.partition(":") for text in self.query.getlist("sort") for order in text.split(",") if order]
        for name, _, direction in reversed(orders):
            if name not in fields or direction not in ("", "asc", "desc"):
                raise InvalidInput.field(
                    "sort", f"{name}:{direction or 'asc'} is none of {', '.join(fields)}, :asc or :desc"
                )
            attribute = "created" if name == "started" else name
            rows = sorted(rows, key=lambda row: getattr(row, attribute) or "", reverse=direction == "desc")
        return rows


Handler = Callable[[Call], Reply]


def route(path: str, handle: Handler, method: str = "GET", prefix: str = "/v1") -> Route:
    async def endpoint(request: Request) -> Response:
        cloud: Cloud = request.app.state.cloud
        try:
            authorize(request, cloud.token)
            if prefix == "/v1":
                delay = cloud.faults.before_request(request.method, request.url.path, cloud.rate.limit)
                await anyio.sleep(delay)
            return (await _serve(cloud, handle, request)).response()
        except ApiError as error:
            return error_response(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return error_response(ServerError("unexpected error in the lab's cloud; see the traceback with: lab logs"))

    return Route(prefix + path, endpoint, methods=[method])


async def _serve(cloud: Cloud, handle: Handler, request: Request) -> Reply:
    data = await request.body()

    def transact() -> tuple[Reply, list[Job]]:
        with cloud.store.transaction() as tx:
            reply = handle(Call(cloud, tx, request, data))
            load_balancers.follow(tx)
            requested = set(_running(reply.payload)) if reply.wait_seconds else set()
            jobs = tx.jobs + [job for job in tx.all(Job) if job.action in requested]
        return reply, jobs

    reply, jobs = await run_sync(transact)
    if reply.after_commit:
        try:
            reply.payload = {**(reply.payload or {}), **await run_sync(reply.after_commit)}
        except MachineError as error:
            raise ServiceError(str(error)) from None
    if jobs:
        failed = await cloud.engine.settle(jobs, reply.wait_seconds or cloud.settle_seconds)
        if failed:
            raise ServiceError("; ".join(failed))
        await run_sync(_refresh, cloud, reply.payload)
    return reply


def _actions_of(payload: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    for key in ("action", "actions", "next_actions"):
        value = (payload or {}).get(key)
        yield from value if isinstance(value, list) else [value] if value else []


def _running(payload: dict[str, Any] | None) -> Iterable[int]:
    return (action["id"] for action in _actions_of(payload) if action["status"] == "running")


def _refresh(cloud: Cloud, payload: dict[str, Any] | None) -> None:
    """Replace the actions of a response by their current state."""
    with cloud.store.transaction() as tx:
        for entry in _actions_of(payload):
            if action := tx.get(Action, entry["id"]):
                entry.update(action_wire.shape(action))


def authorize(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized.missing()
    if not secrets.compare_digest(given.encode(), token.encode()):
        raise Unauthorized.invalid()


def error_response(error: ApiError) -> Response:
    return Response(to_json(error.body()), error.status, media_type="application/json")


async def route_not_found(request: Request, _: Exception) -> Response:
    """404 for unknown paths even without a token; 405 for a wrong method requires one."""
    return error_response(NotFound.route())


async def method_not_allowed(request: Request, _: Exception) -> Response:
    try:
        authorize(request, request.app.state.cloud.token)
    except Unauthorized as error:
        return error_response(error)
    return error_response(MethodNotAllowed())


ExceptionHandlers = Mapping[Any, Callable[[Request, Exception], Any]]
EXCEPTION_HANDLERS: ExceptionHandlers = {404: route_not_found, 405: method_not_allowed, HTTPException: route_not_found}


class RateLimit:
    """A bucket that fills by one every 3600/limit seconds."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._left = float(limit)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(self.limit, self._left + (now - self._at) * self.limit / 3600)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def headers(self, status: int) -> list[tuple[bytes, bytes]]:
        """A 429 says that nothing remains, also when an injected fault is its cause."""
        left = 0 if status == RateLimitExceeded.status else self._left
        full = self._at + (self.limit - left) * 3600 / self.limit
        return [
            (b"ratelimit-limit", str(self.limit).encode()),
            (b"ratelimit-remaining", str(int(left)).encode()),
            (b"ratelimit-reset", str(int(full)).encode()),
        ]


class Envelope:
    """Adds the headers of every response and applies the rate limit to every request."""

    def __init__(self, app: ASGIApp, rate: RateLimit) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"x-correlation-id", secrets.token_hex(8).encode()), *self._rate.headers(message["status"])]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        is_admitted = scope["path"].startswith("/_lab/") or self._rate.take()
        app = self._app if is_admitted else error_response(RateLimitExceeded(self._rate.limit))
        await app(scope, receive, send_with_headers)
