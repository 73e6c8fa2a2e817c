from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace

from lab.cloud import catalogue
from lab.cloud.catalogue import IMAGES, LOCATIONS, SERVER_TYPES, Image, Location, ServerType
from lab.cloud.domain import actions, firewalls, networks, placement_groups, primary_ips, snapshots, volumes
from lab.cloud.domain.common import Site, relabel, require, require_unique_name
from lab.cloud.domain.objects import (
    Action,
    Firewall,
    Network,
    PlacementGroup,
    PrimaryIp,
    Rescue,
    Resource,
    Server,
    Snapshot,
    SshKey,
    Volume,
)
from lab.cloud.domain.view import View, image_of, location_of, type_of
from lab.cloud.errors import (
    AlreadyInPlacementGroup,
    InvalidInput,
    InvalidServerType,
    NotFound,
    PrimaryIpAssigned,
    PrimaryIpDatacenterMismatch,
    PrimaryIpVersionMismatch,
    Protected,
    ResourceLimitExceeded,
    ResourceUnavailable,
    ServerNotStopped,
    UnsupportedError,
)
from lab.cloud.store import Transaction
from lab.cloud.wire.servers import AttachToNetwork, ChangeType, Create, EnableRescue, PublicNet, Rebuild, Update

NO_INTERFACE = "invalid input: server must be attached to at least one of: primary_ipv4, primary_ipv6, private_network"


def create(tx: Transaction, site: Site, body: Create) -> tuple[Server, Action, list[Action]]:
    """A new server. The action creates the host; the following ones attach and start it."""
    type = _type(body.server_type)
    image, snapshot = _image(tx, site, body.image, type, type.disk)
    require_unique_name(tx, Server, body.name)
    keys = [require(tx, SshKey, ref) for ref in body.ssh_keys]
    wanted = [require(tx, Network, id) for id in body.networks]
    disks = [require(tx, Volume, id) for id in body.volumes]
    filters = [require(tx, Firewall, ref.firewall) for ref in body.firewalls]
    group = require(tx, PlacementGroup, body.placement_group) if body.placement_group is not None else None
    given = _given_ips(tx, body.public_net)
    location = _location(site, body.location, type, [*disks, *given])
    for volume in disks:
        actions.require_unlocked(tx, volume)
        volumes.require_attachable(tx, volume, location.id)
    if len(disks) > volumes.VOLUMES_A_SERVER:
        raise ResourceLimitExceeded("server_volume_limit")
    for ip in given:
        if ip.location != location.id:
            raise PrimaryIpDatacenterMismatch("primary IP and server are in different locations")
    if group:
        placement_groups.require_room(tx, group)
    has_interface = body.public_net.enable_ipv4 or body.public_net.enable_ipv6 or wanted
    if body.start_after_create and not has_interface:
        raise InvalidInput(NO_INTERFACE)
    if filters and not (body.public_net.enable_ipv4 or body.public_net.enable_ipv6):
        raise InvalidInput.field("firewalls", "require a server with a public network interface")

    id = tx.new_id()
    server = tx.put(
        Server(
            id=id,
            created=tx.now,
            name=body.name,
            labels=body.labels,
            status="initializing",
            server_type=type.id,
            image=image.id,
            location=location.id,
            primary_disk_size=type.disk,
            mac_address=networks.mac_address("96", id),
            user_data=body.user_data,
            ssh_keys=tuple(key.public_key for key in keys),
            root_password=None if keys else _password(),
            placement_group=group.id if group else None,
            snapshot=snapshot.id if snapshot else None,
        )
    )
    ips = given + [
        primary_ips.allocate(tx, site, kind, location)
        for kind, enabled in (("ipv4", body.public_net.enable_ipv4), ("ipv6", body.public_net.enable_ipv6))
        if enabled and kind not in {ip.type for ip in given}
    ]
    for ip in ips:
        tx.put(replace(ip, server=id))
    for firewall in filters:
        tx.put(replace(firewall, servers=(*firewall.servers, id)))

    creation = actions.start(
        tx,
        "create_server",
        server,
        hold=map(primary_ips.address_key, ips),
        share=[snapshot] if snapshot else [],
    )
    if View(tx).firewalls(server):
        firewalls.refilter(tx, server)
    following = []
    for network in wanted:
        server = networks.attach(tx, server, network, location.network_zone)
        following.append(_sync_attachment(tx, "attach_to_network", server, network))
    for volume in disks:
        volume = tx.put(replace(volume, server=id))
        following.append(actions.start(tx, "attach_volume", server, volume, automount=body.automount))
    if body.start_after_create:
        following.append(actions.start(tx, "start_server", server))
    return server, creation, following


def update(tx: Transaction, server: Server, body: Update) -> Server:
    before = View(tx).firewalls(server)
    server = relabel(tx, server, body.name, body.labels)
    if View(tx).firewalls(server) != before:
        firewalls.refilter(tx, server)
    return server


def delete(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    if server.protected:
        raise Protected("server deletion is protected")
    view = View(tx)
    disks = [volume for volume in tx.all(Volume) if volume.server == server.id]
    for attachment in server.attachments:
        if network := tx.get(Network, attachment.network):
            actions.enqueue(tx, "sync_attachment", server, network, share=[network])
    action = actions.start(
        tx,
        "delete_server",
        server,
        hold=[
            *map(primary_ips.address_key, view.ips(server)),
            *(volume.key for volume in disks),
            *(ip.key for ip in view.floating_ips(server)),
        ],
        volumes=[volume.id for volume in disks],
    )
    for volume in disks:
        tx.put(replace(volume, server=None))
    for ip in view.ips(server):
        if ip.auto_delete:
            tx.drop(ip)
        else:
            tx.put(replace(ip, server=None))
    for floating in view.floating_ips(server):
        tx.put(replace(floating, server=None))
    for backup in [image for image in tx.all(Snapshot) if image.bound_to == server.id]:
        snapshots.remove(tx, backup)
    firewalls.remove_server(tx, server)
    tx.drop(server)
    return action


# Power


def power_on(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    if server.status == "running":
        return actions.done(tx, "start_server", server)
    if not (View(tx).ips(server) or server.attachments):
        raise InvalidInput(NO_INTERFACE)
    return actions.start(tx, "start_server", tx.put(replace(server, status="starting")))


def power_off(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    if server.status == "off":
        return actions.done(tx, "stop_server", server)
    return actions.start(tx, "stop_server", tx.put(replace(server, status="stopping")))


def shutdown(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    if server.status == "off":
        return actions.done(tx, "shutdown_server", server)
    return actions.start(tx, "shutdown_server", server)


def reboot(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    _require_running(server)
    return actions.start(tx, "reboot_server", server)


def reset(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    return actions.start(tx, "reset_server", server)


def reset_password(tx: Transaction, server: Server) -> tuple[Action, str]:
    actions.require_unlocked(tx, server)
    _require_running(server)
    password = _password()
    return actions.start(tx, "reset_password", server, password=password), password


# Disk, size and boot


def rebuild(tx: Transaction, site: Site, server: Server, body: Rebuild) -> tuple[Action, str | None]:
    actions.require_unlocked(tx, server)
    if server.protected:
        raise Protected("server rebuild is protected")
    image, snapshot = _image(tx, site, body.image, type_of(server), server.primary_disk_size)
    password = None if server.ssh_keys else _password()
    server = tx.put(
        replace(
            server,
            image=image.id,
            snapshot=snapshot.id if snapshot else None,
            user_data=server.user_data if body.user_data is None else body.user_data,
            root_password=password,
            status="rebuilding",
        )
    )
    return actions.start(tx, "rebuild_server", server, share=[snapshot] if snapshot else []), password


def change_type(tx: Transaction, site: Site, server: Server, body: ChangeType) -> Action:
    actions.require_unlocked(tx, server)
    old, new, location = type_of(server), _type(body.server_type), location_of(server)
    if new.architecture != old.architecture:
        raise InvalidServerType(f"server type {new.name} has another architecture than {old.name}")
    if new is old:
        raise InvalidServerType(f"server already has type {new.name}")
    if new.disk < server.primary_disk_size:
        raise InvalidServerType(
            f"server type {new.name} has a disk of {new.disk} GB and the server one of {server.primary_disk_size} GB; "
            "a disk cannot shrink"
        )
    if location.name not in new.sold:
        raise InvalidServerType(f"server type {new.name} cannot be ordered in {location.name}")
    _require_off(server)
    if site.sold_out(new.name, location.name):
        raise ResourceUnavailable.sold_out()
    disk = new.disk if body.upgrade_disk else server.primary_disk_size
    changed = tx.put(replace(server, server_type=new.id, primary_disk_size=disk, status="migrating"))
    return actions.start(
        tx, "change_server_type", changed, previous_type=old.id, previous_disk=server.primary_disk_size
    )


def enable_rescue(tx: Transaction, server: Server, body: EnableRescue) -> tuple[Action, str]:
    actions.require_unlocked(tx, server)
    keys = tuple(require(tx, SshKey, id).public_key for id in body.ssh_keys)
    rescue = Rescue(enabled=tx.time, password=_password(), ssh_keys=keys)
    tx.put(replace(server, rescue=rescue))
    return actions.done(tx, "enable_rescue", server), rescue.password


def disable_rescue(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    tx.put(replace(server, rescue=None))
    return actions.done(tx, "disable_rescue", server)


def set_backup(tx: Transaction, server: Server, enabled: bool) -> Action:
    actions.require_unlocked(tx, server)
    tx.put(replace(server, backup_window="22-02" if enabled else None))
    return actions.done(tx, "enable_backup" if enabled else "disable_backup", server)


def detach_iso(tx: Transaction, server: Server) -> Action:
    """ISOs cannot be attached in the lab, so there is nothing to detach."""
    return actions.done(tx, "detach_iso", server)


# Networks and names


def attach_to_network(tx: Transaction, server: Server, body: AttachToNetwork) -> Action:
    actions.require_unlocked(tx, server)
    network = require(tx, Network, body.network)
    actions.require_idle(tx, network)
    server = networks.attach(
        tx, server, network, location_of(server).network_zone, body.ip, body.ip_range, body.alias_ips
    )
    return _sync_attachment(tx, "attach_to_network", server, network)


def detach_from_network(tx: Transaction, server: Server, network_id: int) -> Action:
    actions.require_unlocked(tx, server)
    network = require(tx, Network, network_id)
    actions.require_idle(tx, network)
    return _sync_attachment(tx, "detach_from_network", networks.detach(tx, server, network), network)


def change_alias_ips(tx: Transaction, server: Server, network_id: int, alias_ips: Iterable[str]) -> Action:
    actions.require_unlocked(tx, server)
    network = require(tx, Network, network_id)
    actions.require_idle(tx, network)
    return _sync_attachment(tx, "change_alias_ips", networks.change_alias_ips(tx, server, network, alias_ips), network)


def change_dns_ptr(tx: Transaction, server: Server, address: str, name: str | None) -> Action:
    actions.require_unlocked(tx, server)
    for ip in View(tx).ips(server):
        if primary_ips.owns(ip, address):
            tx.put(primary_ips.with_ptr(ip, address, name))
            return actions.done(tx, "change_dns_ptr", server)
    raise InvalidInput.field("ip", f"{address!r} does not belong to the server")


# Groups and protection


def add_to_placement_group(tx: Transaction, server: Server, group_id: int) -> Action:
    actions.require_unlocked(tx, server)
    group = require(tx, PlacementGroup, group_id)
    if server.placement_group is not None:
        raise AlreadyInPlacementGroup("server is already part of a placement group")
    _require_off(server)
    placement_groups.require_room(tx, group)
    server = tx.put(replace(server, placement_group=group.id))
    if not _was_started(tx, server):
        return actions.done(tx, "add_to_placement_group", server, group)
    # Hetzner moves the server to another machine and starts it again there.
    server = tx.put(replace(server, status="starting"))
    return actions.start(tx, "add_to_placement_group", server, group, work="start_server")


def _was_started(tx: Transaction, server: Server) -> bool:
    return any(
        action.command == "start_server" and Resource(server.id, server.TYPE) in action.resources
        for action in tx.all(Action)
    )


def remove_from_placement_group(tx: Transaction, server: Server) -> Action:
    actions.require_unlocked(tx, server)
    group = tx.get(PlacementGroup, server.placement_group)
    if group is None:
        raise InvalidInput("server is not part of a placement group")
    tx.put(replace(server, placement_group=None))
    return actions.done(tx, "remove_from_placement_group", server, group)


def change_protection(tx: Transaction, server: Server, delete: bool | None, rebuild: bool | None) -> Action:
    actions.require_unlocked(tx, server)
    wanted = {server.protected if flag is None else flag for flag in (delete, rebuild)}
    if len(wanted) > 1:
        raise InvalidInput.fields([("delete", "must be equal to rebuild"), ("rebuild", "must be equal to delete")])
    tx.put(replace(server, protected=wanted.pop()))
    return actions.done(tx, "change_protection", server)


def _sync_attachment(tx: Transaction, command: str, server: Server, network: Network) -> Action:
    # Many servers may be attached to a network at once, so its key is shared.
    return actions.start(
        tx, command, server, network, work="sync_attachment", share=[network], joins=command == "attach_to_network"
    )


def _type(ref: int | str) -> ServerType:
    type = catalogue.find(SERVER_TYPES, ref)
    if type is None:
        raise NotFound.of("server_type", ref)
    return type


def _image(
    tx: Transaction, site: Site, ref: int | str, type: ServerType, disk_gb: int
) -> tuple[Image, Snapshot | None]:
    """The system image, and the snapshot of it that is meant, if any."""
    snapshot = tx.get(Snapshot, int(ref)) if isinstance(ref, int) or ref.isdecimal() else None
    image = image_of(snapshot) if snapshot else catalogue.find(IMAGES, ref, type.architecture)
    if image is None:
        raise NotFound.of("image", ref)
    if image.architecture != type.architecture:
        raise InvalidInput.field("image", f"{image.name} is for {image.architecture}, server type {type.name} is not")
    if type.architecture != "x86":
        raise UnsupportedError(f"server type {type.name} is ARM, the hosts of this lab are x86; use cx or cpx")
    support = site.image_support(image.name)
    if image.type != "system" or not support.supported:
        raise UnsupportedError(support.reason or f"image {image.name} cannot run in this lab")
    if snapshot:
        actions.require_unlocked(tx, snapshot)
        if snapshot.disk_size > disk_gb:
            raise InvalidInput.field("image", f"has a disk of {snapshot.disk_size} GB, the server one of {disk_gb} GB")
    return image, snapshot


def _given_ips(tx: Transaction, public: PublicNet) -> list[PrimaryIp]:
    ips = []
    for kind, id, enabled in (("ipv4", public.ipv4, public.enable_ipv4), ("ipv6", public.ipv6, public.enable_ipv6)):
        if id is None:
            continue
        if not enabled:
            raise InvalidInput.field(f"public_net.{kind}", f"is set while enable_{kind} is false")
        ip = require(tx, PrimaryIp, id)
        actions.require_unlocked(tx, ip)
        if ip.type != kind:
            raise PrimaryIpVersionMismatch(f"Primary IP {ip.name} is not an {kind} address")
        if ip.server is not None or ip.load_balancer is not None:
            raise PrimaryIpAssigned(f"Primary IP {ip.name} is already assigned")
        ips.append(ip)
    return ips


def _location(site: Site, ref: int | str | None, type: ServerType, bound: Iterable[Volume | PrimaryIp]) -> Location:
    """The requested location; else that of the given volumes and addresses, else the first where the type is sold."""
    if ref is not None:
        location = catalogue.find(LOCATIONS, ref)
        if location is None:
            raise NotFound.of("location", ref)
        choices = [location]
    else:
        bound_to = [location_of(obj) for obj in bound]
        choices = bound_to[:1] or [location for location in LOCATIONS if location.name in type.sold]
    if type.withdrawn:
        raise InvalidInput.field("server_type", f"server type {type.id} is deprecated")
    sold = [location for location in choices if location.name in type.sold]
    if not sold:
        raise InvalidInput("unsupported location for server type")
    for location in sold:
        if not site.sold_out(type.name, location.name):
            return location
    raise ResourceUnavailable.sold_out()


def _require_off(server: Server) -> None:
    if server.status != "off":
        raise ServerNotStopped


def _require_running(server: Server) -> None:
    if server.status != "running":
        raise UnsupportedError("server is not running")


def _password() -> str:
    return secrets.token_urlsafe(15)
