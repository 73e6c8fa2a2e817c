"""Relations between the objects, computed once per request."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

from lab.cloud import labels
from lab.cloud.catalogue import IMAGES, LOCATIONS, SERVER_TYPES, Image, Location, ServerType
from lab.cloud.domain import actions
from lab.cloud.domain.objects import (
    Firewall,
    FloatingIp,
    Job,
    LoadBalancer,
    Network,
    PlacementGroup,
    PrimaryIp,
    Rescue,
    Server,
    Snapshot,
    Volume,
)
from lab.cloud.store import Transaction

RESCUE_SECONDS = 3600


class View:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    @cached_property
    def locked(self) -> set[str]:
        return actions.locked_keys(self.tx)

    @cached_property
    def _volumes(self) -> dict[int | None, list[int]]:
        found = defaultdict(list)
        for volume in self.tx.all(Volume):
            found[volume.server].append(volume.id)
        return found

    @cached_property
    def _ips(self) -> dict[int | None, dict[str, PrimaryIp]]:
        found: dict[int | None, dict[str, PrimaryIp]] = defaultdict(dict)
        for ip in self.tx.all(PrimaryIp):
            found[ip.server][ip.type] = ip
        return found

    @cached_property
    def _groups(self) -> dict[int | None, list[int]]:
        found = defaultdict(list)
        for server in self.tx.all(Server):
            found[server.placement_group].append(server.id)
        return found

    @cached_property
    def _networks(self) -> dict[int, list[int]]:
        found = defaultdict(list)
        for server in self.tx.all(Server):
            for attachment in server.attachments:
                found[attachment.network].append(server.id)
        return found

    def volumes(self, server: Server) -> list[int]:
        return self._volumes.get(server.id, [])

    def ip(self, server: Server, type: str) -> PrimaryIp | None:
        return self._ips.get(server.id, {}).get(type)

    def ips(self, server: Server) -> list[PrimaryIp]:
        return list(self._ips.get(server.id, {}).values())

    def floating_ips(self, server: Server) -> list[FloatingIp]:
        return [ip for ip in self.tx.all(FloatingIp) if ip.server == server.id]

    def members(self, group: PlacementGroup) -> list[int]:
        return self._groups.get(group.id, [])

    def attached(self, network: Network) -> list[int]:
        return self._networks.get(network.id, [])

    def matching(self, selector: str) -> list[Server]:
        """Servers with a public address that match a firewall's label selector."""
        matches = labels.parse(selector)
        return [server for server in self.tx.all(Server) if matches(server.labels) and self.ips(server)]

    def firewalls(self, server: Server) -> list[int]:
        """All firewalls in force: applied directly or by a label selector. None without a public address."""
        if not self.ips(server):
            return []
        return [
            firewall.id
            for firewall in self.tx.all(Firewall)
            if server.id in firewall.servers
            or any(labels.parse(selector)(server.labels) for selector in firewall.selectors)
        ]

    @cached_property
    def _filtering(self) -> set[int]:
        return {job.args["server"] for job in self.tx.all(Job) if job.work == "filter_host"}

    def firewall_status(self, server: Server) -> str:
        return "pending" if server.id in self._filtering else "applied"

    def attachment_status(self, server: Server, network: Network) -> str:
        for job in self.tx.all(Job):
            if job.work == "sync_attachment" and (job.args["server"], job.args["network"]) == (server.id, network.id):
                return "attaching" if job.args.get("joins") else "updating"
        return "ok"

    def rescue(self, server: Server) -> Rescue | None:
        rescue = server.rescue
        return rescue if rescue and self.tx.time - rescue.enabled < RESCUE_SECONDS else None


_LOCATIONS = {entry.id: entry for entry in LOCATIONS}
_TYPES = {entry.id: entry for entry in SERVER_TYPES}
_IMAGES = {entry.id: entry for entry in IMAGES}


def location_of(obj: Server | Volume | PrimaryIp | FloatingIp | LoadBalancer) -> Location:
    return _LOCATIONS[obj.location]


def type_of(server: Server) -> ServerType:
    return _TYPES[server.server_type]


def image_of(obj: Server | Snapshot) -> Image:
    """The system image that the disk began with."""
    return _IMAGES[obj.image]
