"""Shared by the tests and the process that they kill; few imports, because it is started often."""

from __future__ import annotations

import socket

from lab.cloud import specs
from lab.cloud.app import Cloud
from lab.cloud.domain.view import View
from lab.machines.base import HostSpec
from lab.machines.stub import StubMachines

TOKEN = "lab-token"
RATE_LIMIT = 1_000_000
"""Requests per hour of the clouds that many tests use; tests of the limit set a lower one."""


def listen(port: int = 0) -> socket.socket:
    """A listener on loopback, on a free port unless one is given."""
    # asyncio sets TCP_NODELAY only on sockets with an explicit IPPROTO_TCP; otherwise each response is 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _comparable(spec: HostSpec) -> tuple[object, ...]:
    return spec.ipv4, spec.ipv6_network, spec.image, spec.floating_ips, spec.snapshot_id


def differences(cloud: Cloud) -> list[str]:
    """Differences between the machines and the store, and violations of the machines' contract."""
    machines = cloud.machines
    assert isinstance(machines, StubMachines)
    with cloud.store.transaction() as tx:
        wanted = specs.desired(View(tx))
    pairs: dict[str, tuple[object, object]] = {
        "hosts": (
            {spec.server_id: _comparable(spec) for spec in machines.hosts.values()},
            {spec.server_id: _comparable(spec) for spec in wanted.hosts},
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
        "snapshots": (machines.snapshots, set(wanted.snapshots)),
        "load balancers": (machines.load_balancers, {spec.load_balancer_id: spec for spec in wanted.load_balancers}),
        "volume hosts": (machines.volume_hosts, wanted.volume_attachments),
    }
    return machines.broken + [
        f"{name}: {actual} instead of {expected}" for name, (actual, expected) in pairs.items() if actual != expected
    ]
