"""What the tests share with the process that they kill; light, for it starts often."""

from __future__ import annotations

import socket

from lab.cloud import specs
from lab.cloud.app import Cloud
from lab.cloud.domain.view import View
from lab.machines.stub import StubMachines

TOKEN = "lab-token"


def listen() -> socket.socket:
    """A free port of loopback."""
    # Named as TCP: asyncio only switches Nagle off for sockets that say so, and each answer would be 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


def out_of_line(cloud: Cloud) -> list[str]:
    """Where the machines are not as the store wants them, and where a caller broke their contract."""
    machines = cloud.machines
    assert isinstance(machines, StubMachines)
    with cloud.store.transaction() as tx:
        wanted = specs.desired(View(tx))
    pairs: dict[str, tuple[object, object]] = {
        "hosts": (
            {spec.server_id: (spec.ipv4, spec.ipv6_network, spec.image) for spec in machines.hosts.values()},
            {spec.server_id: (spec.ipv4, spec.ipv6_network, spec.image) for spec in wanted.hosts},
        ),
        "on": (machines.on, set(wanted.running)),
        "networks": (machines.networks, {spec.network_id: spec for spec in wanted.networks}),
        "attachments": (
            machines.attachments,
            {(spec.server_id, spec.network_id): spec for spec in wanted.attachments},
        ),
        "firewalls": (machines.firewalls, {spec.firewall_id: spec for spec in wanted.firewalls}),
        "members": ({id: ids for id, ids in machines.members.items() if ids}, wanted.firewall_members),
        "volumes": (machines.volumes, {spec.volume_id: spec for spec in wanted.volumes}),
        "volume hosts": (machines.volume_hosts, wanted.volume_attachments),
    }
    return machines.broken + [
        f"{what}: {seen} instead of {want}" for what, (seen, want) in pairs.items() if seen != want
    ]
