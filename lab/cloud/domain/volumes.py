from __future__ import annotations

from dataclasses import replace

from lab.cloud.catalogue import LOCATIONS, find
from lab.cloud.domain import actions
from lab.cloud.domain.common import require, require_unique_name
from lab.cloud.domain.objects import Action, Server, Volume
from lab.cloud.errors import (
    InvalidInput,
    NotFound,
    Protected,
    ResourceInUse,
    ResourceLimitExceeded,
    VolumeAlreadyAttached,
)
from lab.cloud.store import Transaction
from lab.cloud.wire.base import Ref
from lab.cloud.wire.volumes import Create

VOLUMES_A_SERVER = 16


def create(tx: Transaction, body: Create) -> tuple[Volume, Action, list[Action]]:
    require_unique_name(tx, Volume, body.name)
    server = require(tx, Server, body.server) if body.server is not None else None
    if server is None and body.automount:
        raise InvalidInput.field("automount", "is only allowed with a server")
    volume = tx.put(
        Volume(
            id=tx.new_id(),
            created=tx.now,
            name=body.name,
            labels=body.labels,
            size=body.size,
            location=_location(body.location, server),
            format=body.format,
        )
    )
    creation = actions.start(tx, "create_volume", volume)
    if server is None:
        return volume, creation, []
    volume, attached = _attach(tx, volume, server, automount=bool(body.automount))
    return volume, creation, [attached]


def _location(ref: Ref | None, server: Server | None) -> int:
    """The requested location, which must be that of the server, or the location of the server."""
    if ref is None:
        if server is None:
            raise InvalidInput.fields([(name, "set a server or a location") for name in ("server", "location")])
        return server.location
    location = find(LOCATIONS, ref)
    if location is None:
        raise NotFound.of("location", ref)
    if server and server.location != location.id:
        raise InvalidInput.field("location", "differs from the location of the server")
    return location.id


def delete(tx: Transaction, volume: Volume) -> None:
    actions.require_unlocked(tx, volume)
    if volume.protected:
        raise Protected("volume deletion is protected")
    if volume.server is not None:
        raise ResourceInUse(f"volume with ID {volume.id} is still attached to a server")
    tx.drop(volume)
    actions.enqueue(tx, "delete_volume", volume)


def attach(tx: Transaction, volume: Volume, server: Server, automount: bool) -> Action:
    actions.require_unlocked(tx, volume, server)
    return _attach(tx, volume, server, automount)[1]


def _attach(tx: Transaction, volume: Volume, server: Server, automount: bool) -> tuple[Volume, Action]:
    require_attachable(tx, volume, server.location)
    if sum(other.server == server.id for other in tx.all(Volume)) >= VOLUMES_A_SERVER:
        raise ResourceLimitExceeded("server_volume_limit", f"a server has {VOLUMES_A_SERVER} volumes at most")
    volume = tx.put(replace(volume, server=server.id))
    return volume, actions.start(tx, "attach_volume", volume, server, automount=automount)


def require_attachable(tx: Transaction, volume: Volume, location: int) -> None:
    if volume.server is not None:
        raise VolumeAlreadyAttached(f"volume with ID {volume.id} is already attached to a server")
    if volume.location != location:
        raise InvalidInput(f"volume {volume.name} and the server must be in the same location")


def detach(tx: Transaction, volume: Volume) -> Action:
    server = tx.get(Server, volume.server)
    if server is None:
        raise InvalidInput("volume is not attached to a server")
    actions.require_unlocked(tx, volume, server)
    tx.put(replace(volume, server=None))
    return actions.start(tx, "detach_volume", volume, server)


def resize(tx: Transaction, volume: Volume, size: int) -> Action:
    actions.require_unlocked(tx, volume)
    if size <= volume.size:
        raise InvalidInput.field("size", f"{size} GB is not more than the volume's {volume.size} GB")
    tx.put(replace(volume, size=size))
    return actions.start(tx, "resize_volume", volume, previous=volume.size)


def change_protection(tx: Transaction, volume: Volume, delete: bool | None) -> Action:
    actions.require_unlocked(tx, volume)
    tx.put(replace(volume, protected=volume.protected if delete is None else delete))
    return actions.done(tx, "change_protection", volume)
