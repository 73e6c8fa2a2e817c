"""The interface between the local cloud (`lab.cloud`) and its backends (`lab.machines.*`).

Every operation is synchronous (the caller runs it in a worker thread), idempotent (an action that was interrupted by a
kill is run again) and raises `MachineError` with one sentence when it fails. Operations on different servers run
concurrently, with locking by the backend; the cloud never runs two operations on one server at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class MachineError(Exception):
    """An operation failed. The text is one sentence; it becomes the action's error message."""


class PowerState(StrEnum):
    RUNNING = "running"
    OFF = "off"
    ABSENT = "absent"


class ExitReason(StrEnum):
    """Why a host stopped without an operation of the cloud."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A server, as the backend needs it. `memory_gb` and `disk_gb` as in the server type; `cores` is a count."""

    server_id: int
    name: str
    image: str
    """Name of a system image, for example `debian-13`; see `supported_images`."""
    cores: int
    memory_gb: float
    disk_gb: int
    ipv4: str | None
    """Public IPv4 address without prefix length, or None."""
    ipv6_network: str | None
    """Public IPv6 network, `2001:db8:…::/64`; the host itself uses `::1` in it. None without IPv6."""
    user_data: str = ""
    ssh_keys: tuple[str, ...] = ()
    """Public keys for root."""
    root_password: str | None = None
    rescue: bool = False
    rescue_ssh_keys: tuple[str, ...] = ()
    public_mac: str = ""
    floating_ips: tuple[str, ...] = ()
    """Addresses, and /64 networks of IPv6, that are routed to the host; its system configures them."""
    snapshot_id: int | None = None
    """The snapshot that a new root disk is copied from, instead of `image`."""


@dataclass(frozen=True, slots=True)
class Route:
    destination: str
    gateway: str


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A private network. Its gateway is the first address of `ip_range`."""

    network_id: int
    name: str
    ip_range: str
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class AttachmentSpec:
    """One server's attachment to one private network."""

    server_id: int
    network_id: int
    ip: str
    mac_address: str
    interface: str
    """`enp7s0` for the first network of a server, then `enp8s0`, `enp9s0`."""
    alias_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FirewallRule:
    direction: str
    """`in` or `out`."""
    protocol: str
    """`tcp`, `udp`, `icmp`, `esp` or `gre`."""
    port: str | None
    """`80`, `1024-2048` or `any` for tcp and udp; None otherwise."""
    cidrs: tuple[str, ...]
    """Sources of an `in` rule, destinations of an `out` rule; v4 and v6 mixed."""


@dataclass(frozen=True, slots=True)
class FirewallSpec:
    firewall_id: int
    rules: tuple[FirewallRule, ...]


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    volume_id: int
    size_gb: int
    format: str | None = None
    """`ext4`, `xfs` or None: created once, with the volume."""


@dataclass(frozen=True, slots=True)
class HealthCheckSpec:
    protocol: str
    """`tcp` or `http`; the fields from `domain` on are for `http`."""
    port: int
    interval: int
    timeout: int
    retries: int
    domain: str = ""
    path: str = "/"
    response: str = ""
    status_codes: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service of a load balancer. `certificates`: PEM chains with their keys; without any, TLS passes through."""

    protocol: str
    listen_port: int
    destination_port: int
    proxyprotocol: bool
    health_check: HealthCheckSpec
    cookie_name: str | None = None
    """None without sticky sessions."""
    cookie_lifetime: int = 300
    timeout_idle: int = 50
    certificates: tuple[str, ...] = ()
    redirect_http: bool = False


@dataclass(frozen=True, slots=True)
class LoadBalancerSpec:
    """A load balancer. `targets` are addresses; the same ones serve every service."""

    load_balancer_id: int
    name: str
    public_mac: str
    ipv4: str | None
    """None while the public interface is disabled, like `ipv6_network`."""
    ipv6_network: str | None
    attachment: AttachmentSpec | None
    algorithm: str
    """`round_robin` or `least_connections`."""
    max_connections: int
    services: tuple[ServiceSpec, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetHealth:
    status: str
    """`healthy`, `unhealthy` or `unknown`."""
    detail: str | None = None
    http_status_code: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of a load balancer at one time; all but `open_connections` only grow until its process is replaced."""

    time: float
    open_connections: int
    connections: int
    requests: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Desired:
    """The complete desired state, for `reconcile`."""

    hosts: tuple[HostSpec, ...] = ()
    running: frozenset[int] = frozenset()
    """Ids of the servers that are to be powered on."""
    networks: tuple[NetworkSpec, ...] = ()
    attachments: tuple[AttachmentSpec, ...] = ()
    firewalls: tuple[FirewallSpec, ...] = ()
    firewall_members: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Server id → firewall ids."""
    volumes: tuple[VolumeSpec, ...] = ()
    volume_attachments: dict[int, int] = field(default_factory=dict)
    """Volume id → server id."""
    snapshots: frozenset[int] = frozenset()
    load_balancers: tuple[LoadBalancerSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on a host's links. `network_id` None means the public link."""

    server_id: int
    network_id: int | None
    cut: bool = False
    delay_ms: int = 0
    loss_percent: int = 0


@dataclass(frozen=True, slots=True)
class ImageSupport:
    name: str
    supported: bool
    reason: str = ""
    """Why the lab cannot run an image of the catalogue, one sentence; empty when supported."""


OnExit = Callable[[int, ExitReason], None]
"""Called from a backend thread when a host stopped by itself: (server id, reason). The host is off by then. On REBOOT
the cloud calls `power_on` with the current spec, which may enable the rescue system."""

MetadataHandler = Callable[[int, str], tuple[int, str, str] | None]
"""Metadata service: (server id, path such as `/hetzner/v1/metadata`) → (HTTP status, content type, body), or None for
404. Passed to the backend's constructor; the backend listens at 169.254.169.254 and identifies the server by namespace
and source address."""


class Machines(Protocol):
    """A backend of the cloud."""

    def image_support(self, image: str) -> ImageSupport: ...

    # servers
    def create_host(self, spec: HostSpec) -> None:
        """Create the host with its root disk and public link; it stays off."""

    def delete_host(self, server_id: int) -> None: ...

    def power_on(self, spec: HostSpec) -> None:
        """Start; returns when init runs (not when SSH answers). `spec` is the current one: name, rescue, keys."""

    def power_off(self, server_id: int) -> None:
        """Cut the power: links down, then SIGKILL."""

    def shutdown(self, server_id: int) -> None:
        """Send the ACPI power button; returns at once. `OnExit` reports the end (POWEROFF)."""

    def reboot(self, server_id: int) -> None:
        """Soft reboot (ACPI); returns at once. `OnExit` reports the end (REBOOT)."""

    def rebuild(self, spec: HostSpec) -> None:
        """Replace the root disk by a new one of `spec.image`; addresses and volumes are kept. The host ends up off."""

    def resize(self, spec: HostSpec) -> None:
        """Change cores, memory and disk; the host is off."""

    def set_public_link(self, spec: HostSpec) -> None:
        """Set the public addresses of a host that is off to those of `spec` (primary IPs assigned or unassigned)."""

    def route_floating_ips(self, spec: HostSpec) -> None:
        """Route exactly the floating IPs of `spec` to the host, which may be running."""

    def state(self, server_id: int) -> PowerState: ...

    def reset_password(self, server_id: int, password: str) -> None: ...

    # private networks
    def apply_network(self, spec: NetworkSpec) -> None:
        """Create the network, or update its range and routes."""

    def delete_network(self, network_id: int) -> None: ...

    def attach(self, spec: AttachmentSpec) -> None:
        """Attach, or update the alias addresses. The host may be running or stopped."""

    def detach(self, server_id: int, network_id: int) -> None: ...

    # firewalls
    def apply_firewall(self, spec: FirewallSpec) -> None:
        """Create the rule set, or replace it atomically; established connections are kept."""

    def delete_firewall(self, firewall_id: int) -> None: ...

    def set_host_firewalls(self, server_id: int, firewall_ids: Sequence[int]) -> None:
        """Exactly these firewalls filter the host's public link; none means open."""

    # volumes
    def create_volume(self, spec: VolumeSpec) -> None: ...

    def resize_volume(self, spec: VolumeSpec) -> None: ...

    def delete_volume(self, volume_id: int) -> None: ...

    def attach_volume(self, volume_id: int, server_id: int, automount: bool = False) -> None:
        """The device appears in the host as `/dev/disk/by-id/scsi-0HC_Volume_<id>`, now or at its next start."""

    def detach_volume(self, volume_id: int, server_id: int) -> None: ...

    # snapshots
    def create_snapshot(self, snapshot_id: int, server_id: int) -> float:
        """Copy the root disk of a host, running or not; returns the size of the copy in GB."""

    def delete_snapshot(self, snapshot_id: int) -> None: ...
    # load balancers
    def apply_load_balancer(self, spec: LoadBalancerSpec) -> None:
        """Create the load balancer, or change it without closing established connections."""

    def delete_load_balancer(self, load_balancer_id: int) -> None: ...

    def load_balancer_health(self, load_balancer_id: int) -> dict[tuple[int, str], TargetHealth]:
        """(listen port, address of the target) → health. Never raises: without an answer the dictionary is empty."""

    def load_balancer_samples(self, load_balancer_id: int) -> list[Sample]:
        """The samples since the start of the daemon, oldest first."""

    # the whole lab
    def reconcile(self, desired: Desired) -> list[str]:
        """Converge to `desired` and remove all objects of this lab that are not in it. Returns the changes, one
        sentence each; empty without drift."""

    def set_fault(self, fault: Fault) -> None:
        """Set the fault of one link; all fields at their default clear it."""

    def faults(self) -> list[Fault]: ...

    def fill_disk(self, server_id: int, free_mb: int | None) -> None:
        """Fill the root disk until `free_mb` are free; None removes the fill file."""

    def filled_disks(self) -> dict[int, int]:
        """Server id → MB left free, for the hosts whose disks are filled."""

    def console_log(self, server_id: int) -> str:
        """The console output of the host since its creation (tail, at most 64 KiB)."""

    def close(self) -> None:
        """Stop the listeners and the watcher; hosts keep running."""

    def destroy(self) -> None:
        """Remove everything of this lab from the machine: containers, namespaces, links, rules, loop devices."""
