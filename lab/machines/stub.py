"""A backend without hosts, for tests without root. It implements `base.Machines` and checks how callers use it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from lab.machines.base import (
    AttachmentSpec,
    Desired,
    ExitReason,
    Fault,
    FirewallSpec,
    HostSpec,
    ImageSupport,
    LoadBalancerSpec,
    MachineError,
    NetworkSpec,
    OnExit,
    PowerState,
    Sample,
    TargetHealth,
    VolumeSpec,
)

IMAGES = frozenset({"debian-12", "debian-13"})


class StubMachines:
    """`seconds` is the time of an operation on a server; `fail` maps an operation's name to its error message."""

    def __init__(self, on_exit: OnExit | None = None, seconds: float = 0.0) -> None:
        self.on_exit = on_exit
        self.seconds = seconds
        self.fail: dict[str, str] = {}
        self.calls: list[tuple[str, int]] = []
        self.hosts: dict[int, HostSpec] = {}
        self.on: set[int] = set()
        self.networks: dict[int, NetworkSpec] = {}
        self.attachments: dict[tuple[int, int], AttachmentSpec] = {}
        self.firewalls: dict[int, FirewallSpec] = {}
        self.members: dict[int, tuple[int, ...]] = {}
        self.volumes: dict[int, VolumeSpec] = {}
        self.volume_hosts: dict[int, int] = {}
        self.load_balancers: dict[int, LoadBalancerSpec] = {}
        self.health: dict[tuple[int, str], TargetHealth] = {}
        self.samples: list[Sample] = []
        self.passwords: dict[int, str] = {}
        self.snapshots: set[int] = set()
        self.broken: list[str] = []
        """Violations of the interface by callers, one sentence each."""
        self._faults: dict[tuple[int, int | None], Fault] = {}
        self._filled: dict[int, int] = {}
        self._lock = Lock()
        self._busy: set[int] = set()

    @contextmanager
    def _operation(self, operation: str, id: int, server: bool = True) -> Iterator[None]:
        with self._lock:
            self.calls.append((operation, id))
            if server and id in self._busy:
                self.broken.append(f"{operation} on server {id} while another operation runs on it")
            if server:
                self._busy.add(id)
        try:
            if server and self.seconds:
                time.sleep(self.seconds)
            if operation in self.fail:
                raise MachineError(self.fail[operation])
            with self._lock:
                yield
        finally:
            if server:
                with self._lock:
                    self._busy.discard(id)

    def _require[T](self, table: dict[int, T], noun: str, id: int) -> T:
        if id not in table:
            raise MachineError(f"{noun} {id} does not exist")
        return table[id]

    def image_support(self, image: str) -> ImageSupport:
        if image in IMAGES:
            return ImageSupport(image, True)
        return ImageSupport(image, False, f"the lab has no image {image}. Use debian-12 or debian-13.")

    def create_host(self, spec: HostSpec) -> None:
        with self._operation("create_host", spec.server_id):
            self._require_free(spec)
            self._require_snapshot(spec)
            self.hosts.setdefault(spec.server_id, spec)

    def _require_snapshot(self, spec: HostSpec) -> None:
        if spec.snapshot_id is not None and spec.snapshot_id not in self.snapshots:
            raise MachineError(f"snapshot {spec.snapshot_id} does not exist")

    def _require_free(self, spec: HostSpec) -> None:
        for other in self.hosts.values():
            if other.server_id != spec.server_id and (both := set(other.floating_ips) & set(spec.floating_ips)):
                self.broken.append(f"{both} are routed to {spec.server_id} while {other.server_id} has them")
            if other.server_id != spec.server_id and spec.ipv4 and other.ipv4 == spec.ipv4:
                self.broken.append(f"{spec.ipv4} is assigned to {spec.server_id} while {other.server_id} has it")

    def delete_host(self, server_id: int) -> None:
        with self._operation("delete_host", server_id):
            self.hosts.pop(server_id, None)
            self.on.discard(server_id)
            self.members.pop(server_id, None)
            for key in [key for key in self.attachments if key[0] == server_id]:
                del self.attachments[key]

    def power_on(self, spec: HostSpec) -> None:
        with self._operation("power_on", spec.server_id):
            self._require(self.hosts, "host", spec.server_id)
            self.hosts[spec.server_id] = spec
            self.on.add(spec.server_id)

    def power_off(self, server_id: int) -> None:
        with self._operation("power_off", server_id):
            self.on.discard(server_id)

    def shutdown(self, server_id: int) -> None:
        with self._operation("shutdown", server_id):
            self.on.discard(server_id)
        self._exit(server_id, ExitReason.POWEROFF)

    def reboot(self, server_id: int) -> None:
        with self._operation("reboot", server_id):
            self.on.discard(server_id)
        self._exit(server_id, ExitReason.REBOOT)

    def exit(self, server_id: int, reason: ExitReason) -> None:
        """Stop the host as `poweroff`, `reboot` or a crash in it would."""
        with self._lock:
            self.on.discard(server_id)
        self._exit(server_id, reason)

    def _exit(self, server_id: int, reason: ExitReason) -> None:
        if self.on_exit:
            self.on_exit(server_id, reason)

    def rebuild(self, spec: HostSpec) -> None:
        with self._operation("rebuild", spec.server_id):
            self._require(self.hosts, "host", spec.server_id)
            self._require_snapshot(spec)
            self.hosts[spec.server_id] = spec
            self.on.discard(spec.server_id)

    def resize(self, spec: HostSpec) -> None:
        self._change("resize", spec)

    def set_public_link(self, spec: HostSpec) -> None:
        self._change("set_public_link", spec)

    def _change(self, operation: str, spec: HostSpec) -> None:
        with self._operation(operation, spec.server_id):
            self._require(self.hosts, "host", spec.server_id)
            if spec.server_id in self.on:
                self.broken.append(f"{operation} on server {spec.server_id}, which runs")
            self._require_free(spec)
            self.hosts[spec.server_id] = spec

    def route_floating_ips(self, spec: HostSpec) -> None:
        with self._operation("route_floating_ips", spec.server_id):
            self._require(self.hosts, "host", spec.server_id)
            self._require_free(spec)
            self.hosts[spec.server_id] = spec

    def state(self, server_id: int) -> PowerState:
        if server_id not in self.hosts:
            return PowerState.ABSENT
        return PowerState.RUNNING if server_id in self.on else PowerState.OFF

    def reset_password(self, server_id: int, password: str) -> None:
        with self._operation("reset_password", server_id):
            self._require(self.hosts, "host", server_id)
            self.passwords[server_id] = password

    def apply_network(self, spec: NetworkSpec) -> None:
        with self._operation("apply_network", spec.network_id, server=False):
            self.networks[spec.network_id] = spec

    def delete_network(self, network_id: int) -> None:
        with self._operation("delete_network", network_id, server=False):
            if any(network == network_id for _, network in self.attachments):
                self.broken.append(f"network {network_id} is deleted while hosts are attached to it")
            for balancer in self.load_balancers.values():
                if balancer.attachment and balancer.attachment.network_id == network_id:
                    self.broken.append(f"network {network_id} is deleted while {balancer.name} is attached to it")
            self.networks.pop(network_id, None)

    def attach(self, spec: AttachmentSpec) -> None:
        with self._operation("attach", spec.server_id):
            self._require(self.hosts, "host", spec.server_id)
            self._require(self.networks, "network", spec.network_id)
            self.attachments[spec.server_id, spec.network_id] = spec

    def detach(self, server_id: int, network_id: int) -> None:
        with self._operation("detach", server_id):
            self.attachments.pop((server_id, network_id), None)

    def apply_firewall(self, spec: FirewallSpec) -> None:
        with self._operation("apply_firewall", spec.firewall_id, server=False):
            self.firewalls[spec.firewall_id] = spec

    def delete_firewall(self, firewall_id: int) -> None:
        with self._operation("delete_firewall", firewall_id, server=False):
            if any(firewall_id in ids for ids in self.members.values()):
                self.broken.append(f"firewall {firewall_id} is deleted while it filters a host")
            self.firewalls.pop(firewall_id, None)

    def set_host_firewalls(self, server_id: int, firewall_ids: Sequence[int]) -> None:
        with self._operation("set_host_firewalls", server_id):
            self._require(self.hosts, "host", server_id)
            for id in firewall_ids:
                self._require(self.firewalls, "firewall", id)
            self.members[server_id] = tuple(firewall_ids)

    def create_volume(self, spec: VolumeSpec) -> None:
        with self._operation("create_volume", spec.volume_id, server=False):
            self.volumes.setdefault(spec.volume_id, spec)

    def resize_volume(self, spec: VolumeSpec) -> None:
        with self._operation("resize_volume", spec.volume_id, server=False):
            self._require(self.volumes, "volume", spec.volume_id)
            self.volumes[spec.volume_id] = spec

    def delete_volume(self, volume_id: int) -> None:
        with self._operation("delete_volume", volume_id, server=False):
            if volume_id in self.volume_hosts:
                self.broken.append(f"volume {volume_id} is deleted while attached")
            self.volumes.pop(volume_id, None)

    def attach_volume(self, volume_id: int, server_id: int, automount: bool = False) -> None:
        with self._operation("attach_volume", server_id):
            self._require(self.volumes, "volume", volume_id)
            self._require(self.hosts, "host", server_id)
            self.volume_hosts[volume_id] = server_id

    def detach_volume(self, volume_id: int, server_id: int) -> None:
        with self._operation("detach_volume", server_id):
            self.volume_hosts.pop(volume_id, None)

    def create_snapshot(self, snapshot_id: int, server_id: int) -> float:
        with self._operation("create_snapshot", server_id):
            self._require(self.hosts, "host", server_id)
            self.snapshots.add(snapshot_id)
        return 1.5

    def delete_snapshot(self, snapshot_id: int) -> None:
        with self._operation("delete_snapshot", snapshot_id, server=False):
            self.snapshots.discard(snapshot_id)

    def apply_load_balancer(self, spec: LoadBalancerSpec) -> None:
        with self._operation("apply_load_balancer", spec.load_balancer_id):
            if spec.attachment:
                self._require(self.networks, "network", spec.attachment.network_id)
            self.load_balancers[spec.load_balancer_id] = spec

    def delete_load_balancer(self, load_balancer_id: int) -> None:
        with self._operation("delete_load_balancer", load_balancer_id):
            self.load_balancers.pop(load_balancer_id, None)

    def load_balancer_health(self, load_balancer_id: int) -> dict[tuple[int, str], TargetHealth]:
        return dict(self.health)

    def load_balancer_samples(self, load_balancer_id: int) -> list[Sample]:
        return list(self.samples)

    def reconcile(self, desired: Desired) -> list[str]:
        done: list[str] = []
        with self._lock:
            hosts = {spec.server_id: spec for spec in desired.hosts}
            done += [f"removed host {id}" for id in self.hosts.keys() - hosts.keys()]
            done += [f"created host {spec.name}" for spec in desired.hosts if spec.server_id not in self.hosts]
            done += [f"started host {hosts[id].name}" for id in desired.running - self.on]
            self.hosts, self.on = hosts, set(desired.running)
            self.networks = {spec.network_id: spec for spec in desired.networks}
            self.attachments = {(spec.server_id, spec.network_id): spec for spec in desired.attachments}
            self.firewalls = {spec.firewall_id: spec for spec in desired.firewalls}
            self.members = dict(desired.firewall_members)
            self.volumes = {spec.volume_id: spec for spec in desired.volumes}
            self.volume_hosts = dict(desired.volume_attachments)
            self.snapshots = set(desired.snapshots)
            self.load_balancers = {spec.load_balancer_id: spec for spec in desired.load_balancers}
        return sorted(done)

    def set_fault(self, fault: Fault) -> None:
        with self._lock:
            key = (fault.server_id, fault.network_id)
            if fault == Fault(*key):
                self._faults.pop(key, None)
            else:
                self._faults[key] = fault

    def faults(self) -> list[Fault]:
        return list(self._faults.values())

    def fill_disk(self, server_id: int, free_mb: int | None) -> None:
        self._filled.pop(server_id, None)
        if free_mb is not None:
            self._filled[server_id] = free_mb

    def filled_disks(self) -> dict[int, int]:
        return dict(self._filled)

    def console_log(self, server_id: int) -> str:
        return f"{self._require(self.hosts, 'host', server_id).name} login: \n"

    def close(self) -> None:
        pass

    def destroy(self) -> None:
        with self._lock:
            self.hosts, self.networks, self.firewalls, self.volumes = {}, {}, {}, {}
            self.on, self.attachments, self.members, self.volume_hosts = set(), {}, {}, {}
            self.snapshots = set()
            self.load_balancers = {}
