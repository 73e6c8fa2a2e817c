"""How a change becomes an action (a record that clients wait for) and a job (work on the machines)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lab.cloud.domain.objects import Action, ActionError, Firewall, Job, Network, Object, Resource
from lab.cloud.errors import Conflict, Locked
from lab.cloud.store import Transaction


def done(tx: Transaction, command: str, *resources: Object) -> Action:
    """An action that needed no machine: it has already succeeded."""
    action = _record(tx, command, resources)
    return tx.put(replace(action, status="success", finished=tx.now))


def begin(
    tx: Transaction,
    command: str,
    *resources: Object,
    hold: Iterable[str] = (),
    share: Iterable[Object] = (),
    work: str | None = None,
    locking: bool = True,
    **args: Any,
) -> Action:
    """An action with a job behind it. The job holds its resources, except those that it shares.

    `locking`: whether servers, volumes and primary IPs among them answer 423 to other changes meanwhile.
    """
    action = _record(tx, command, resources)
    _job(tx, work or command, resources, hold, share, args, action, locking)
    return action


def effect(
    tx: Transaction,
    work: str,
    *resources: Object,
    hold: Iterable[str] = (),
    share: Iterable[Object] = (),
    **args: Any,
) -> None:
    """Work that Hetzner does without an action."""
    _job(tx, work, resources, hold, share, args, None, locking=False)


def _record(tx: Transaction, command: str, resources: Iterable[Object]) -> Action:
    named = tuple(Resource(resource.id, resource.TYPE) for resource in resources)
    return tx.put(Action(id=tx.new_id(), created=tx.now, command=command, resources=named))


def _job(
    tx: Transaction,
    work: str,
    resources: Iterable[Object],
    hold: Iterable[str],
    share: Iterable[Object],
    args: dict[str, Any],
    action: Action | None,
    locking: bool,
) -> None:
    shared = {resource.key for resource in share}
    tx.put(
        Job(
            id=tx.new_id(),
            created=tx.now,
            work=work,
            action=action.id if action else None,
            args={resource.TYPE: resource.id for resource in resources} | args,
            keys=tuple(sorted(({resource.key for resource in resources} | set(hold)) - shared)),
            shared=tuple(sorted(shared)),
            locking=locking,
        )
    )


def finish(tx: Transaction, job: Job, error: ActionError | None = None) -> None:
    """The job is over, and with it its action."""
    tx.drop(job)
    action = tx.get(Action, job.action)
    if action is not None:
        status = "error" if error else "success"
        tx.put(replace(action, status=status, finished=tx.now, error=error))


def waited_for(tx: Transaction) -> Iterator[Job]:
    """Jobs with an action that still runs."""
    return (job for job in tx.all(Job) if job.action is not None)


def locked_keys(tx: Transaction) -> set[str]:
    """Keys of the objects that answer 423 because a running action holds them."""
    return {key for job in waited_for(tx) if job.locking for key in job.keys}


def require_unlocked(tx: Transaction, *objects: Object) -> None:
    busy = locked_keys(tx)
    for obj in objects:
        if obj.key in busy:
            raise Locked.of(obj.TYPE)


def require_quiet(tx: Transaction, obj: Network | Firewall) -> None:
    """A network or firewall takes one change of its own at a time."""
    if any(obj.key in job.keys for job in waited_for(tx)):
        raise Conflict(f"{obj.TYPE} is being changed, please retry")
