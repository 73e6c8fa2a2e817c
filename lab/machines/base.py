"""The contract between the local cloud (`lab.cloud`) and what runs (`lab.machines.*`).

Every verb is synchronous (the caller runs it in a worker thread), idempotent (called again with the same arguments it
changes nothing and succeeds, so that an action interrupted by a kill can simply be run again) and raises
`MachineError` with one sentence when it cannot be done. Verbs on different servers run at the same time; the backend
does its own locking. The cloud never calls two verbs on one server at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class MachineError(Exception):
    """A verb could not be done. The text is one sentence for a person; it becomes the action's error message."""


class PowerState(StrEnum):
    RUNNING = "running"
    OFF = "off"
    ABSENT = "absent"


class ExitReason(StrEnum):
    """Why a host stopped without being told to by the cloud."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A server as the machine needs to know it. `memory_gb` and `disk_gb` as in the server type; `cores` is a count."""

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
    """One server's leg in one private network."""

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
    """`ext4`, `xfs` or None: made once, when the volume is created."""


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole state that should be running, for `reconcile`."""

    hosts: tuple[HostSpec, ...] = ()
    running: frozenset[int] = frozenset()
    """Server ids that should be powered on."""
    networks: tuple[NetworkSpec, ...] = ()
    attachments: tuple[AttachmentSpec, ...] = ()
    firewalls: tuple[FirewallSpec, ...] = ()
    firewall_members: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Server id → firewall ids."""
    volumes: tuple[VolumeSpec, ...] = ()
    volume_attachments: dict[int, int] = field(default_factory=dict)
    """Volume id → server id."""


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
    """Why a catalogue image cannot be run here, one sentence; empty when supported."""


OnExit = Callable[[int, ExitReason], None]
"""Called from a backend thread when a host stopped by itself: (server id, why). The host is off by then. On REBOOT the
cloud answers with `power_on` and the current spec: a rescue system armed meanwhile is booted that way."""

MetadataHandler = Callable[[int, str], tuple[int, str, str] | None]
"""Metadata service: (server id, path such as `/hetzner/v1/metadata`) → (HTTP status, content type, body), or None for
404. Given to the backend at construction; the backend listens at 169.254.169.254 and finds the server by namespace and
source address."""


class Machines(Protocol):
    """What the cloud asks of a backend."""

    def image_support(self, image: str) -> ImageSupport: ...

    # servers
    def create_host(self, spec: HostSpec) -> None:
        """Make the host with its root disk and public link; leave it off."""

    def delete_host(self, server_id: int) -> None: ...

    def power_on(self, spec: HostSpec) -> None:
        """Start; returns when init runs (not when SSH answers). `spec` is the current one: name, rescue, keys."""

    def power_off(self, server_id: int) -> None:
        """Pull the plug: SIGKILL, links dead at once."""

    def shutdown(self, server_id: int) -> None:
        """Send the ACPI button; returns at once. The end is reported through `OnExit` (POWEROFF)."""

    def reboot(self, server_id: int) -> None:
        """Soft reboot (ACPI); returns at once. The end is reported through `OnExit` (REBOOT), see there."""

    def rebuild(self, spec: HostSpec) -> None:
        """Replace the root disk by a fresh one of `spec.image`; addresses and volumes stay. Leaves the host off."""

    def resize(self, spec: HostSpec) -> None:
        """New cores and memory; the host is off."""

    def set_public_link(self, spec: HostSpec) -> None:
        """Bring the public addresses of a host that is off in line with `spec` (primary IPs assigned or taken)."""

    def state(self, server_id: int) -> PowerState: ...

    def reset_password(self, server_id: int, password: str) -> None: ...

    # private networks
    def apply_network(self, spec: NetworkSpec) -> None:
        """Create the network, or bring its range and routes in line."""

    def delete_network(self, network_id: int) -> None: ...

    def attach(self, spec: AttachmentSpec) -> None:
        """Attach, or bring alias addresses in line. Works on a running and on a stopped host."""

    def detach(self, server_id: int, network_id: int) -> None: ...

    # firewalls
    def apply_firewall(self, spec: FirewallSpec) -> None:
        """Create the rule set, or replace it atomically; established connections survive."""

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

    # whole
    def reconcile(self, desired: Desired) -> list[str]:
        """Make what runs equal to `desired` and remove what this lab owns and nobody wants. Returns what was done,
        one sentence each; empty when nothing was out of line."""

    def set_fault(self, fault: Fault) -> None:
        """Set (or, with all fields at their default, heal) the fault of one link."""

    def faults(self) -> list[Fault]: ...

    def fill_disk(self, server_id: int, free_mb: int | None) -> None:
        """Leave no more than so much of the root disk free; None gives the room back."""

    def filled_disks(self) -> dict[int, int]:
        """Server id → MB left free, for the hosts whose disks were filled."""

    def console_log(self, server_id: int) -> str:
        """What the host printed on its console since it was made (tail, at most 64 KiB)."""

    def close(self) -> None:
        """Stop listening and watching; hosts go on running."""

    def destroy(self) -> None:
        """Remove everything of this lab from the machine: containers, namespaces, links, rules, loop devices."""
