"""The lab's admin API beside Hetzner's API, at `/_lab/…` with the same token: status, faults, consoles, reset."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any, Literal

from pydantic import Field
from starlette.routing import Route

from lab.cloud.catalogue import LOCATIONS, SERVER_TYPES, find
from lab.cloud.domain import actions
from lab.cloud.domain.objects import EVERYTHING, KINDS, Firewall, Job, Network, Server, SshKey, Volume
from lab.cloud.domain.view import View, image_of, location_of, type_of
from lab.cloud.errors import InvalidInput, NotFound
from lab.cloud.faults import ApiFault, Entry
from lab.cloud.web import Call, Handler, Reply
from lab.cloud.web import route as any_route
from lab.cloud.wire.base import Body
from lab.machines.base import Fault, Machines


class HostFault(Body):
    """Body of `POST /_lab/faults` for a host's links, power and disk."""

    kind: Literal["power_cut", "network_cut", "network_heal", "delay", "loss", "disk_full", "disk_room"]
    server: str
    link: str = "public"
    """`public`, the name of a private network, or `all`."""
    milliseconds: int = Field(default=100, ge=0, le=60_000)
    """delay"""
    percent: int = Field(default=10, ge=0, le=100)
    """loss"""
    seconds: float | None = Field(default=None, gt=0, le=3600)
    """power_cut: seconds until power returns. Default: off until powered on."""
    free_mb: int = Field(default=0, ge=0)
    """disk_full: free space of the root disk that remains."""


class FaultKind(Body):
    kind: str


HOST_KINDS = frozenset({"power_cut", "network_cut", "network_heal", "delay", "loss", "disk_full", "disk_room"})


def routes() -> list[Route]:
    return [
        _route("/status", status),
        _route("/faults", faults),
        _route("/faults", add_fault, "POST"),
        _route("/faults", clear_faults, "DELETE"),
        _route("/faults/{id}", remove_fault, "DELETE"),
        _route("/servers/{name}/console", console),
        _route("/reset", reset, "POST"),
    ]


def _route(path: str, handle: Handler, method: str = "GET") -> Route:
    return any_route(path, handle, method, prefix="/_lab")


def status(call: Call) -> Reply:
    view, tx, cloud = call.view, call.tx, call.cloud
    names = {network.id: network.name for network in tx.all(Network)}
    volumes = {volume.id: volume.name for volume in tx.all(Volume)}
    return Reply({
        "name": cloud.settings.name,
        "reconciling": cloud.engine.reconciling,
        "servers": [
            {
                "id": server.id,
                "name": server.name,
                "status": server.status,
                "type": type_of(server).name,
                "image": image_of(server).name,
                "location": location_of(server).name,
                "public": {ip.type: ip.ip for ip in view.ips(server)},
                "private": {
                    names.get(attachment.network, str(attachment.network)): attachment.ip
                    for attachment in server.attachments
                },
                "volumes": [volumes[id] for id in view.volumes(server)],
                "labels": server.labels,
                "busy": server.key in view.locked,
            }
            for server in tx.all(Server)
        ],
        "networks": [
            {
                "id": network.id,
                "name": network.name,
                "ip_range": network.ip_range,
                "subnets": [subnet.ip_range for subnet in network.subnets],
                "members": len(view.attached(network)),
            }
            for network in tx.all(Network)
        ],
        "faults": _faults(call),
        "counts": {
            kind.TYPE: len(tx.all(kind)) for kind in (Server, Network, Volume, Firewall, SshKey, Job)
        },
        "problems": cloud.engine.problems,
        "memory_mb": _memory_mb(),
    })  # fmt: skip


def faults(call: Call) -> Reply:
    return Reply({"faults": _faults(call)})


def add_fault(call: Call) -> Reply:
    if call.body(FaultKind).kind in HOST_KINDS:
        return _host_fault(call, call.body(HostFault))
    fault = call.body(ApiFault)
    if fault.kind == "out_of_stock":
        _require_in_catalogue(fault)
    return Reply({"fault": _shape(call.cloud.faults.add(fault))}, 201)


def clear_faults(call: Call) -> Reply:
    machines = call.cloud.machines
    call.cloud.faults.remove()

    def clear() -> dict[str, Any]:
        for fault in machines.faults():
            machines.set_fault(Fault(fault.server_id, fault.network_id))
        for server_id in machines.filled_disks():
            machines.fill_disk(server_id, None)
        return {"faults": []}

    return Reply(None, after_commit=clear)


def remove_fault(call: Call) -> Reply:
    id = call.request.path_params["id"]
    if not id.isdecimal():
        raise NotFound.of("fault", id)
    call.cloud.faults.remove(int(id))
    return Reply(None, 204)


def console(call: Call) -> Reply:
    server, machines = _server(call, call.request.path_params["name"]), call.cloud.machines
    return Reply(None, after_commit=lambda: {"console": machines.console_log(server.id)})


def reset(call: Call) -> Reply:
    """Delete everything except the sequence of ids."""
    call.cloud.faults.remove()
    for kind in KINDS:
        for obj in call.tx.all(kind):
            call.tx.drop(obj)
    actions.enqueue(call.tx, "reset", hold=[EVERYTHING])
    return Reply({"reset": True})


def _require_in_catalogue(fault: ApiFault) -> None:
    if fault.server_type is not None and find(SERVER_TYPES, fault.server_type) is None:
        raise InvalidInput.field("server_type", f"{fault.server_type!r} is not in the catalogue")
    if fault.location is not None and find(LOCATIONS, fault.location) is None:
        raise InvalidInput.field("location", f"{fault.location!r} is not in the catalogue")


def _host_fault(call: Call, fault: HostFault) -> Reply:
    server = _server(call, fault.server)
    if fault.kind == "power_cut":
        actions.enqueue(call.tx, "cut_power", server)
        if fault.seconds is not None:
            timer = Timer(fault.seconds, call.cloud.enqueue, (server.id, "start_server"))
            timer.daemon = True
            timer.start()
        return Reply(None, 204)
    machines = call.cloud.machines
    if fault.kind in ("disk_full", "disk_room"):
        return Reply(None, 201, after_commit=lambda: _set_disk_fill(machines, server, fault))
    links = _links(call.view, server, fault.link)

    def change() -> dict[str, Any]:
        for network_id in links:
            none = Fault(server.id, network_id)
            current = {(known.server_id, known.network_id): known for known in machines.faults()}
            machines.set_fault(_merged(current.get((server.id, network_id), none), fault))
        return {"server": server.name, "kind": fault.kind}

    return Reply(None, 201, after_commit=change)


def _set_disk_fill(machines: Machines, server: Server, fault: HostFault) -> dict[str, Any]:
    machines.fill_disk(server.id, fault.free_mb if fault.kind == "disk_full" else None)
    return {"server": server.name, "kind": fault.kind}


def _merged(old: Fault, fault: HostFault) -> Fault:
    match fault.kind:
        case "network_cut":
            return replace(old, cut=True)
        case "delay":
            return replace(old, delay_ms=fault.milliseconds)
        case "loss":
            return replace(old, loss_percent=fault.percent)
        case _:
            return Fault(old.server_id, old.network_id)


def _links(view: View, server: Server, link: str) -> list[int | None]:
    networks = {
        network.name: network.id
        for attachment in server.attachments
        if (network := view.tx.get(Network, attachment.network))
    }
    if link == "all":
        return [None, *networks.values()]
    if link == "public":
        return [None]
    if link not in networks:
        raise InvalidInput.field("link", f"{link!r} is neither public, all nor a network of {server.name}")
    return [networks[link]]


def _server(call: Call, name: str) -> Server:
    for server in call.tx.all(Server):
        if server.name == name:
            return server
    raise NotFound(f"there is no server {name}")


def _faults(call: Call) -> list[dict[str, Any]]:
    servers = {server.id: server.name for server in call.tx.all(Server)}
    networks = {network.id: network.name for network in call.tx.all(Network)}
    return (
        [_shape(entry) for entry in call.cloud.faults.entries()]
        + [
            {
                "kind": "link",
                "server": servers.get(fault.server_id, str(fault.server_id)),
                "link": "public" if fault.network_id is None else networks.get(fault.network_id, str(fault.network_id)),
                "cut": fault.cut,
                "delay_ms": fault.delay_ms,
                "loss_percent": fault.loss_percent,
            }
            for fault in call.cloud.machines.faults()
        ]
        + [
            {"kind": "disk_full", "server": servers.get(server_id, str(server_id)), "free_mb": str(free_mb)}
            for server_id, free_mb in call.cloud.machines.filled_disks().items()
        ]
    )


def _shape(entry: Entry) -> dict[str, Any]:
    given = entry.fault.model_dump(exclude_unset=True, exclude={"count"})
    return {"id": entry.id, **given, "left": entry.left}


def _memory_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)
