"""Actions (records that clients wait for) and jobs (work on the machines) of a change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lab.cloud.domain.objects import Action, ActionError, Firewall, Job, Network, Object, Resource
from lab.cloud.errors import Conflict, Locked
from lab.cloud.store import Transaction


def done(tx: Transaction, command: str, *resources: Object) -> Action:
    """An action without work on the machines: it has already succeeded."""
    action = _record(tx, command, resources)
    return tx.put(replace(action, status="success", finished=tx.now))


def start(
    tx: Transaction,
    command: str,
    *resources: Object,
    hold: Iterable[str] = (),
    share: Iterable[Object] = (),
    work: str | None = None,
    locking: bool = True,
    **args: Any,
) -> Action:
    """An action with a job. The job holds its resources, except those that it shares.

    `locking`: whether other changes of its servers, volumes and primary IPs fail with 423 meanwhile.
    """
    action = _record(tx, command, resources)
    _job(tx, work or command, resources, hold, share, args, action, locking)
    return action


def enqueue(
    tx: Transaction,
    work: str,
    *resources: Object,
    hold: Iterable[str] = (),
    share: Iterable[Object] = (),
    **args: Any,
) -> None:
    """A job for work that Hetzner does without an action."""
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
    """Remove the job and complete its action."""
    tx.drop(job)
    action = tx.get(Action, job.action)
    if action is not None:
        status = "error" if error else "success"
        tx.put(replace(action, status=status, finished=tx.now, error=error))


def jobs_with_action(tx: Transaction) -> Iterator[Job]:
    """Jobs that an action waits for."""
    return (job for job in tx.all(Job) if job.action is not None)


def locked_keys(tx: Transaction) -> set[str]:
    """Keys of the objects whose changes fail with 423 because a running action holds them."""
    return {key for job in jobs_with_action(tx) if job.locking for key in job.keys}


def require_unlocked(tx: Transaction, *objects: Object) -> None:
    busy = locked_keys(tx)
    for obj in objects:
        if obj.key in busy:
            raise Locked.of(obj.TYPE)


def require_idle(tx: Transaction, obj: Network | Firewall) -> None:
    """Require that no other change of the network or firewall is running."""
    if any(obj.key in job.keys for job in jobs_with_action(tx)):
        raise Conflict(f"{obj.TYPE} is being changed, please retry")
