"""From a request to an answer: token, faults, one transaction, a short wait for the work, headers."""

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
from lab.cloud.pagination import Page
from lab.cloud.store import Clock, Transaction
from lab.cloud.wire import actions as action_wire
from lab.cloud.wire.base import Body, parse
from lab.machines.base import MachineError

if TYPE_CHECKING:
    from lab.cloud.app import Cloud

log = logging.getLogger("lab.cloud")

SETTLE_SECONDS = 0.3
"""How long a change waits for its own work, so that most actions have succeeded in the first answer."""
POLL_SECONDS = 1.5
"""How long a question about a running action waits for its end: Ansible asks again only after two seconds."""


@dataclass(slots=True)
class Reply:
    payload: dict[str, Any] | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    patience: float = 0.0
    """How long to wait for the actions in the payload that still run."""
    then: Callable[[], dict[str, Any]] | None = None
    """Work on the machines after the transaction that the answer needs; its result joins the payload."""

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
        if found is None:
            raise NotFound.of(kind.TYPE, text)
        return found

    def acted(self, action: Action, **more: Any) -> Reply:
        return Reply({"action": action_wire.shape(action), **more}, 201)

    def acted_all(self, actions: Iterable[Action], status: int = 201, **more: Any) -> Reply:
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
    ) -> Reply:
        """A page of `rows`, filtered and sorted as the query asks.

        `equal`: query keys that must equal a value; `one_of`: repeatable query keys with the words they may be.
        """
        for name, value_of in (equal or {}).items():
            if wanted := self.query.get(name):
                rows = [row for row in rows if str(value_of(row)) == wanted]
        for name, (word_of, words) in (one_of or {}).items():
            if asked := frozenset(self.query.getlist(name)):
                if not asked <= words:
                    raise InvalidInput.field(name, f"{sorted(asked - words)} are not among {sorted(words)}")
                rows = [row for row in rows if word_of(row) in asked]
        if labels_of and (selector := self.query.get("label_selector", "").strip()):
            try:
                holds = labels.parse(selector)
            except ValueError as error:
                raise InvalidInput.field("label_selector", str(error)) from None
            rows = [row for row in rows if holds(labels_of(row))]
        rows = self._sorted(rows, sort)
        page = Page.cut(rows, self.query.get("page"), self.query.get("per_page"))
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
            return answer(error)
        except Exception:
            log.exception("%s %s broke", request.method, request.url.path)
            return answer(ServerError("the lab's cloud broke on this request; its log says how (lab logs)"))

    return Route(prefix + path, endpoint, methods=[method])


async def _serve(cloud: Cloud, handle: Handler, request: Request) -> Reply:
    data = await request.body()

    def transact() -> tuple[Reply, list[Job]]:
        with cloud.store.transaction() as tx:
            reply = handle(Call(cloud, tx, request, data))
            asked = set(_running(reply.payload)) if reply.patience else set()
            jobs = tx.jobs + [job for job in tx.all(Job) if job.action in asked]
        return reply, jobs

    reply, jobs = await run_sync(transact)
    if reply.then:
        try:
            reply.payload = {**(reply.payload or {}), **await run_sync(reply.then)}
        except MachineError as error:
            raise ServiceError(str(error)) from None
    if jobs:
        failed = await cloud.engine.settle(jobs, reply.patience or cloud.settle_seconds)
        if failed:
            raise ServiceError("; ".join(failed))
        await run_sync(_refresh, cloud, reply.payload)
    return reply


def _action_slots(payload: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    for key in ("action", "actions", "next_actions"):
        value = (payload or {}).get(key)
        yield from value if isinstance(value, list) else [value] if value else []


def _running(payload: dict[str, Any] | None) -> Iterable[int]:
    return (slot["id"] for slot in _action_slots(payload) if slot["status"] == "running")


def _refresh(cloud: Cloud, payload: dict[str, Any] | None) -> None:
    """Show the actions of an answer as they are by now."""
    with cloud.store.transaction() as tx:
        for slot in _action_slots(payload):
            if action := tx.get(Action, slot["id"]):
                slot.update(action_wire.shape(action))


def authorize(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized.missing()
    if not secrets.compare_digest(given.encode(), token.encode()):
        raise Unauthorized.invalid()


def answer(error: ApiError) -> Response:
    return Response(to_json(error.body()), error.status, media_type="application/json")


async def no_route(request: Request, _: Exception) -> Response:
    """Unknown paths are unknown to everybody; a wrong method only to those with a token."""
    return answer(NotFound.route())


async def wrong_method(request: Request, _: Exception) -> Response:
    try:
        authorize(request, request.app.state.cloud.token)
    except Unauthorized as error:
        return answer(error)
    return answer(MethodNotAllowed())


ExceptionHandlers = Mapping[Any, Callable[[Request, Exception], Any]]
EXCEPTION_HANDLERS: ExceptionHandlers = {404: no_route, 405: wrong_method, HTTPException: no_route}


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

    def headers(self) -> list[tuple[bytes, bytes]]:
        full = self._at + (self.limit - self._left) * 3600 / self.limit
        return [
            (b"ratelimit-limit", str(self.limit).encode()),
            (b"ratelimit-remaining", str(int(self._left)).encode()),
            (b"ratelimit-reset", str(int(full)).encode()),
        ]


class Envelope:
    """Headers that every answer has, and the limit that every request counts against."""

    def __init__(self, app: ASGIApp, rate: RateLimit) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"x-correlation-id", secrets.token_hex(8).encode()), *self._rate.headers()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        free = scope["path"].startswith("/_lab/") or self._rate.take()
        app = self._app if free else answer(RateLimitExceeded(self._rate.limit))
        await app(scope, receive, send_with_headers)
