"""The stored objects. Frozen: a change is a new value that is put into a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, ClassVar

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """Common to all stored objects. Times are RFC 3339 in UTC, so they sort as text."""

    TYPE: ClassVar[str] = ""
    HAS_NAME_IN_PATH: ClassVar[bool] = False
    """Whether a path of the API may have the object's name in place of its id."""

    id: int
    created: str

    @property
    def key(self) -> str:
        """Unique among all objects; a job holds the keys of the objects that it changes."""
        return f"{self.TYPE}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Object):
    name: str
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKey(Named):
    TYPE: ClassVar[str] = "ssh_key"

    public_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Subnet:
    type: str
    ip_range: str
    network_zone: str


@dataclass(frozen=True, slots=True)
class NetworkRoute:
    destination: str
    gateway: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Named):
    TYPE: ClassVar[str] = "network"

    ip_range: str
    subnets: tuple[Subnet, ...] = ()
    routes: tuple[NetworkRoute, ...] = ()
    protected: bool = False
    expose_routes_to_vswitch: bool = False

    @property
    def gateway(self) -> str:
        """The first address of the network, for all its subnets."""
        return str(IPv4Network(self.ip_range)[1])


@dataclass(frozen=True, slots=True)
class Rule:
    """Stored as sent except for the form of IPv6: clients compare rules field by field."""

    direction: str
    protocol: str
    port: str | None = None
    source_ips: tuple[str, ...] = ()
    destination_ips: tuple[str, ...] = ()
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall(Named):
    TYPE: ClassVar[str] = "firewall"

    rules: tuple[Rule, ...] = ()
    servers: tuple[int, ...] = ()
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementGroup(Named):
    TYPE: ClassVar[str] = "placement_group"

    type: str = "spread"


@dataclass(frozen=True, slots=True)
class Attachment:
    """Attachment of one server to one private network. `number` 1 is enp7s0, 2 enp8s0, 3 enp9s0."""

    network: int
    ip: str
    mac_address: str
    number: int
    alias_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rescue:
    """An enabled rescue system: for the next boot, removed after that boot or after an hour."""

    enabled: float
    password: str
    ssh_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Named):
    TYPE: ClassVar[str] = "server"

    status: str
    server_type: int
    image: int
    """The system image; for a server from a snapshot, that of the snapshot."""
    location: int
    primary_disk_size: int
    mac_address: str
    user_data: str = ""
    ssh_keys: tuple[str, ...] = ()
    root_password: str | None = None
    """Stored until the host is created."""
    attachments: tuple[Attachment, ...] = ()
    placement_group: int | None = None
    protected: bool = False
    """Delete and rebuild protection: Hetzner allows only both or none."""
    rescue: Rescue | None = None
    backup_window: str | None = None
    snapshot: int | None = None
    """The snapshot or backup that the disk was created from."""

    def attachment(self, network: int) -> Attachment | None:
        return next((entry for entry in self.attachments if entry.network == network), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Named):
    TYPE: ClassVar[str] = "volume"

    size: int
    location: int
    server: int | None = None
    format: str | None = None
    status: str = "creating"
    protected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryIp(Named):
    TYPE: ClassVar[str] = "primary_ip"

    type: str
    ip: str
    """An address, or for IPv6 the /64 network."""
    location: int
    server: int | None = None
    load_balancer: int | None = None
    auto_delete: bool = False
    protected: bool = False
    dns_ptr: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatingIp(Named):
    TYPE: ClassVar[str] = "floating_ip"

    type: str
    ip: str
    """An address, or for IPv6 the /64 network."""
    location: int
    description: str | None = None
    server: int | None = None
    protected: bool = False
    dns_ptr: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Object):
    """An image of a server's disk: a snapshot or a backup. System images are in the catalogue."""

    TYPE: ClassVar[str] = "image"

    type: str
    description: str
    image: int
    """The system image that the disk began with."""
    disk_size: int
    created_from: int
    created_from_name: str
    size_gb: float | None = None
    """None until the snapshot is complete."""
    bound_to: int | None = None
    """The server that a backup is deleted with."""
    protected: bool = False
    labels: Labels = field(default_factory=dict)

    @property
    def name(self) -> None:
        """Only system images have one."""


@dataclass(frozen=True, slots=True)
class PrimaryNameserver:
    address: str
    port: int = 53
    tsig_key: str | None = None
    tsig_algorithm: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone(Named):
    TYPE: ClassVar[str] = "zone"
    HAS_NAME_IN_PATH: ClassVar[bool] = True

    mode: str
    ttl: int
    primary_nameservers: tuple[PrimaryNameserver, ...] = ()
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    value: str
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RRSet(Named):
    TYPE: ClassVar[str] = "zone_rrset"

    zone: int
    type: str
    records: tuple[Record, ...]
    ttl: int | None = None
    """None: that of the zone."""
    protected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Named):
    """`certificate` (a PEM chain) and what is derived from it are None until a managed certificate is issued."""

    TYPE: ClassVar[str] = "certificate"

    type: str
    domain_names: tuple[str, ...]
    certificate: str | None = None
    private_key: str | None = None
    not_valid_before: str | None = None
    not_valid_after: str | None = None
    fingerprint: str | None = None
    issuance: str | None = None
    """Of a managed certificate: `pending`, `completed` or `failed`."""
    error: ActionError | None = None


@dataclass(frozen=True, slots=True)
class HealthCheckHttp:
    domain: str = ""
    path: str = "/"
    response: str = ""
    status_codes: tuple[str, ...] = ("2??", "3??")
    tls: bool = False


@dataclass(frozen=True, slots=True)
class HealthCheck:
    protocol: str
    port: int
    interval: int = 15
    timeout: int = 10
    retries: int = 3
    http: HealthCheckHttp | None = None


@dataclass(frozen=True, slots=True)
class ServiceHttp:
    cookie_name: str = "HCLBSTICKY"
    cookie_lifetime: int = 300
    timeout_idle: int = 50
    certificates: tuple[int, ...] = ()
    redirect_http: bool = False
    sticky_sessions: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    protocol: str
    listen_port: int
    destination_port: int
    proxyprotocol: bool
    health_check: HealthCheck
    http: ServiceHttp | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that the service listens on: with a redirect also that of HTTP."""
        redirects = self.http is not None and self.http.redirect_http
        return (self.listen_port, 80) if redirects else (self.listen_port,)


@dataclass(frozen=True, slots=True)
class BalancerTarget:
    """One of `server`, `selector` and `ip`; with `server`, `ip` is the address of it that was requested."""

    type: str
    server: int | None = None
    selector: str | None = None
    ip: str | None = None
    use_private_ip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancer(Named):
    TYPE: ClassVar[str] = "load_balancer"

    load_balancer_type: int
    location: int
    algorithm: str
    mac_address: str
    services: tuple[Service, ...] = ()
    targets: tuple[BalancerTarget, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    """At most one."""
    public: bool = True
    """Whether the public interface is enabled."""
    protected: bool = False

    def attachment(self, network: int) -> Attachment | None:
        return next((entry for entry in self.attachments if entry.network == network), None)


@dataclass(frozen=True, slots=True)
class ActionError:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Resource:
    id: int
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Object):
    """The record that clients wait for. `created` is when it started."""

    TYPE: ClassVar[str] = "action"

    command: str
    resources: tuple[Resource, ...]
    status: str = "running"
    finished: str | None = None
    error: ActionError | None = None


EVERYTHING = "*"
"""The key that excludes every other job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Object):
    """Pending work on the machines. Removed from the store when it has ended."""

    TYPE: ClassVar[str] = "job"

    work: str
    """Key of `work.WORK`."""
    action: int | None = None
    """The action that waits for this job; None for work that Hetzner does without an action."""
    args: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    """Keys that no other job may hold or share meanwhile. Jobs with the same key run in the order of their ids."""
    shared: tuple[str, ...] = ()
    """Keys that other jobs may share but not hold meanwhile."""
    locking: bool = False


KINDS: tuple[type[Object], ...] = (
    SshKey, Network, Firewall, PlacementGroup, Server, Volume, PrimaryIp, FloatingIp, Snapshot, Zone, RRSet,
    Certificate, LoadBalancer, Action, Job,
)  # fmt: skip
