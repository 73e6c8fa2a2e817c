"""Runners at a GitLab server, compared with those that an environment has registered: read, plan, apply. No Ansible."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SETTINGS = ("tag_list", "run_untagged", "locked", "access_level", "maximum_timeout", "paused")
PAGE = 100


class GitlabError(Exception):
    """One sentence for the module's message."""


@dataclass(frozen=True)
class Wanted:
    """A runner that has to exist; `description` identifies it at the server."""

    name: str
    description: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Registration:
    """What the environment has stored about a runner: its number and its token."""

    id: int
    token: str


@dataclass(frozen=True)
class Action:
    """`create`, `update` or `delete` a runner at the server, with the reason."""

    kind: str
    name: str
    reason: str
    id: int = 0


class Server(Protocol):
    """The API; tests implement it in memory."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]: ...


def listed(server: Server, path: str) -> list[dict[str, Any]]:
    """All runners of the list, page by page."""
    found: list[dict[str, Any]] = []
    page = 1
    while True:
        rows = require(server, "GET", f"{path}?per_page={PAGE}&page={page}")
        found += rows
        if len(rows) < PAGE:
            return found
        page += 1


def require(server: Server, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """A call that has to succeed."""
    status, payload = server.call(method, path, body)
    if status == 401:
        raise GitlabError(
            "GitLab: rejects the access token. Set one with the scopes create_runner, manage_runner, api."
        )
    if not 200 <= status < 300:
        raise GitlabError(f"GitLab: {method} {path} returned status {status}: {message(payload)}. Correct the request.")
    return payload


def message(payload: Any) -> str:
    return str(payload.get("message", payload)) if isinstance(payload, dict) else str(payload)[:200]


def details(server: Server, id: int) -> dict[str, Any] | None:
    status, _ = server.call("GET", f"runners/{id}", None)
    return None if status == 404 else dict(require(server, "GET", f"runners/{id}"))


def token_valid(server: Server, registration: Registration) -> bool:
    status, payload = server.call("POST", "runners/verify", {"token": registration.token})
    if status == 403:
        return False
    if status != 200:
        raise GitlabError(f"GitLab: runners/verify returned status {status}: {message(payload)}. Repeat the run.")
    return int(payload["id"]) == registration.id


def plan(
    wanted: Iterable[Wanted],
    removed: Iterable[Wanted],
    stored: Mapping[str, Registration],
    runners: Iterable[Mapping[str, Any]],
    known: Mapping[str, Mapping[str, Any]],
    valid: Mapping[str, bool],
) -> list[Action]:
    """What has to be done, the deletions first.

    `known` are the details of stored runners that exist, `valid` whether their tokens are accepted. A runner with a
    wanted description that is not the stored one was left by an interrupted run.
    """
    rows = list(runners)
    deletions, others = [], []
    for runner in removed:
        ids = {row["id"] for row in rows if row.get("description") == runner.description}
        ids |= {stored[runner.name].id} if runner.name in known else set()
        deletions += [Action("delete", runner.name, "to be removed", id) for id in sorted(ids)]
    for runner in wanted:
        registration = stored.get(runner.name)
        kept = registration.id if registration and runner.name in known and valid.get(runner.name) else None
        reason = "stale: its token is not stored" if registration is None else "stale: another one is stored"
        deletions += [
            Action("delete", runner.name, reason, row["id"])
            for row in rows
            if row.get("description") == runner.description and row["id"] != kept
        ]
        if kept is None:
            why = "not stored" if registration is None else "its token is not valid"
            others.append(Action("create", runner.name, why))
        elif differences := different(runner.settings, known[runner.name]):
            others.append(Action("update", runner.name, f"{', '.join(differences)} differ", kept))
    return deletions + others


def different(settings: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        name for name in SETTINGS if name in settings and _comparable(settings[name]) != _comparable(found.get(name))
    ]


def _comparable(value: Any) -> str:
    return json.dumps(sorted(value) if isinstance(value, list) else value)


def apply(
    actions: Iterable[Action], wanted: Mapping[str, Wanted], server: Server, owner: Mapping[str, Any]
) -> dict[str, Registration]:
    """Carry the actions out; returns the new registrations."""
    created = {}
    for action in actions:
        if action.kind == "delete":
            require(server, "DELETE", f"runners/{action.id}")
        elif action.kind == "update":
            require(server, "PUT", f"runners/{action.id}", wanted[action.name].settings)
        else:
            runner = wanted[action.name]
            body = {**owner, "description": runner.description, **runner.settings}
            answer = require(server, "POST", "user/runners", body)
            created[action.name] = Registration(int(answer["id"]), str(answer["token"]))
    return created
