"""Snapshots and backups: copies of a server's disk, from which servers are created."""

from __future__ import annotations

from dataclasses import replace

from lab.cloud.domain import actions
from lab.cloud.domain.objects import Action, Server, Snapshot
from lab.cloud.errors import InvalidInput, Protected
from lab.cloud.store import Transaction
from lab.cloud.wire.images import Create, Update


def create(tx: Transaction, server: Server, body: Create) -> tuple[Snapshot, Action]:
    actions.require_unlocked(tx, server)
    is_backup = body.type == "backup"
    if is_backup and server.backup_window is None:
        raise InvalidInput.field("type", "backup requires backups of the server, which are disabled")
    snapshot = tx.put(
        Snapshot(
            id=tx.new_id(),
            created=tx.now,
            type=body.type,
            description=body.description or server.name,
            image=server.image,
            disk_size=server.primary_disk_size,
            created_from=server.id,
            created_from_name=server.name,
            bound_to=server.id if is_backup else None,
            labels=body.labels,
        )
    )
    return snapshot, actions.start(tx, "create_image", server, snapshot)


def update(tx: Transaction, snapshot: Snapshot, body: Update) -> Snapshot:
    if body.type is not None:
        snapshot = replace(snapshot, type=body.type, bound_to=None)
    if body.description is not None:
        snapshot = replace(snapshot, description=body.description)
    return tx.put(snapshot if body.labels is None else replace(snapshot, labels=body.labels))


def delete(tx: Transaction, snapshot: Snapshot) -> None:
    actions.require_unlocked(tx, snapshot)
    if snapshot.protected:
        raise Protected("snapshot deletion is protected")
    remove(tx, snapshot)


def remove(tx: Transaction, snapshot: Snapshot) -> None:
    tx.drop(snapshot)
    actions.enqueue(tx, "delete_image", snapshot)


def change_protection(tx: Transaction, snapshot: Snapshot, delete: bool | None) -> Action:
    if snapshot.type != "snapshot":
        raise InvalidInput("only snapshots can be protected, this image is a backup")
    tx.put(replace(snapshot, protected=snapshot.protected if delete is None else delete))
    return actions.done(tx, "change_protection", snapshot)
