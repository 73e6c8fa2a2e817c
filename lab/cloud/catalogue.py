"""Hetzner's catalogue with the ids that clients use: locations, server types, images, ISOs and prices.

Prices approximate those of 2026 and are only displayed. `ServerType.sold` lists where a type can be ordered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

VAT_RATE = Decimal(19)
HOURS_A_MONTH = 720
TERABYTE = 2**40

EU = ("fsn1", "nbg1", "hel1")
US = ("ash", "hil")
ALL = (*EU, *US, "sin")


@dataclass(frozen=True, slots=True)
class Location:
    id: int
    name: str
    description: str
    country: str
    city: str
    latitude: float
    longitude: float
    network_zone: str

    @property
    def availability_zone(self) -> str:
        """The metadata service still returns a datacenter."""
        return f"{self.name}-dc{ {'fsn1': 14, 'nbg1': 3, 'hel1': 2}.get(self.name, 1) }"

    def shape(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Deprecation:
    announced: str
    unavailable_after: str

    def shape(self) -> dict[str, str]:
        return {"announced": self.announced, "unavailable_after": self.unavailable_after}


@dataclass(frozen=True, slots=True)
class ServerType:
    id: int
    name: str
    cores: int
    memory: int
    disk: int
    net_monthly: str
    sold: tuple[str, ...] = ALL
    discontinued: tuple[str, ...] = ()
    """Locations where it could be ordered until `deprecation`."""
    deprecation: Deprecation | None = None

    @property
    def architecture(self) -> str:
        return "arm" if self.name.startswith("cax") else "x86"

    @property
    def cpu_type(self) -> str:
        return "dedicated" if self.name.startswith("ccx") else "shared"

    @property
    def category(self) -> str:
        if self.cpu_type == "dedicated":
            return "general_purpose"
        return "regular_purpose" if self.name.startswith("cpx") else "cost_optimized"

    @property
    def withdrawn(self) -> bool:
        return not self.sold

    def prices(self) -> list[dict[str, Any]]:
        return [
            {
                "location": location,
                "price_hourly": _price(Decimal(self.net_monthly) / HOURS_A_MONTH),
                "price_monthly": _price(Decimal(self.net_monthly)),
                "included_traffic": (20 if location in EU else 1) * TERABYTE,
                "price_per_tb_traffic": _price(Decimal(1)),
            }
            for location in self.sold or self.discontinued
        ]


@dataclass(frozen=True, slots=True)
class LoadBalancerType:
    id: int
    name: str
    max_services: int
    max_targets: int
    max_assigned_certificates: int
    max_connections: int
    net_monthly: str
    included_traffic: int

    def prices(self) -> list[dict[str, Any]]:
        return [
            {
                "location": location,
                "price_hourly": _price(Decimal(self.net_monthly) / HOURS_A_MONTH),
                "price_monthly": _price(Decimal(self.net_monthly)),
                "included_traffic": self.included_traffic,
                "price_per_tb_traffic": _price(Decimal(1)),
            }
            for location in ALL
        ]


@dataclass(frozen=True, slots=True)
class Image:
    id: int
    name: str
    architecture: str
    description: str
    flavor: str
    version: str | None
    type: str = "system"
    created: str = "2025-08-20T00:00:00+00:00"
    deprecated: str | None = None

    def shape(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "status": "available",
            "name": self.name,
            "description": self.description,
            "image_size": None,
            "disk_size": 5,
            "created": self.created,
            "created_from": None,
            "bound_to": None,
            "os_flavor": self.flavor,
            "os_version": self.version,
            "rapid_deploy": self.type == "system",
            "protection": {"delete": False},
            "deprecated": self.deprecated,
            "deprecation": self.deprecated
            and {"announced": self.deprecated, "unavailable_after": self.deprecated.replace("2025", "2026")},
            "deleted": None,
            "labels": {},
            "architecture": self.architecture,
        }


@dataclass(frozen=True, slots=True)
class Iso:
    """A public ISO. `architecture` None: any."""

    id: int
    name: str
    description: str
    architecture: str | None

    def shape(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "type": "public",
            "deprecation": None,
            "architecture": self.architecture,
        }


def _price(net: Decimal) -> dict[str, str]:
    digits = Decimal("0.0000000001")
    gross = net * (1 + VAT_RATE / 100)
    return {"net": f"{net.quantize(digits, ROUND_HALF_UP)}", "gross": f"{gross.quantize(digits, ROUND_HALF_UP)}"}


_CX11_DEPRECATION = Deprecation("2024-06-06T08:00:00+00:00", "2024-09-06T00:00:00+00:00")
_OCTOBER_2025_DEPRECATION = Deprecation("2025-10-16T06:00:00+00:00", "2025-12-31T23:59:59+00:00")

LOCATIONS = (
    Location(1, "fsn1", "Falkenstein DC Park 1", "DE", "Falkenstein", 50.47612, 12.370071, "eu-central"),
    Location(2, "nbg1", "Nuremberg DC Park 1", "DE", "Nuremberg", 49.452102, 11.076665, "eu-central"),
    Location(3, "hel1", "Helsinki DC Park 1", "FI", "Helsinki", 60.169855, 24.938379, "eu-central"),
    Location(4, "ash", "Ashburn, VA", "US", "Ashburn, VA", 39.045821, -77.487073, "us-east"),
    Location(5, "hil", "Hillsboro, OR", "US", "Hillsboro, OR", 45.54222, -122.951924, "us-west"),
    Location(6, "sin", "Singapore", "SG", "Singapore", 1.283333, 103.833333, "ap-southeast"),
)

SERVER_TYPES = (
    ServerType(1, "cx11", 1, 2, 20, "3.29", (), EU, _CX11_DEPRECATION),
    ServerType(22, "cpx11", 2, 2, 40, "3.85", (*US, "sin"), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(23, "cpx21", 3, 4, 80, "7.05", (*US, "sin"), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(24, "cpx31", 4, 8, 160, "13.10", (*US, "sin"), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(25, "cpx41", 8, 16, 240, "24.70", (*US, "sin"), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(26, "cpx51", 16, 32, 360, "54.40", (*US, "sin"), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(45, "cax11", 2, 4, 40, "3.29", EU),
    ServerType(93, "cax21", 4, 8, 80, "5.99", EU),
    ServerType(94, "cax31", 8, 16, 160, "11.99", EU),
    ServerType(95, "cax41", 16, 32, 320, "23.99", EU),
    ServerType(96, "ccx13", 2, 8, 80, "12.49"),
    ServerType(97, "ccx23", 4, 16, 160, "24.49"),
    ServerType(98, "ccx33", 8, 32, 240, "48.49"),
    ServerType(99, "ccx43", 16, 64, 360, "96.49"),
    ServerType(100, "ccx53", 32, 128, 600, "192.49"),
    ServerType(101, "ccx63", 48, 192, 960, "288.49"),
    ServerType(104, "cx22", 2, 4, 40, "3.79", (), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(105, "cx32", 4, 8, 80, "6.80", (), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(106, "cx42", 8, 16, 160, "16.40", (), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(107, "cx52", 16, 32, 320, "32.40", (), EU, _OCTOBER_2025_DEPRECATION),
    ServerType(108, "cpx12", 1, 2, 40, "5.49", (*EU, "sin")),
    ServerType(109, "cpx22", 2, 4, 80, "6.49", (*EU, "sin")),
    ServerType(110, "cpx32", 4, 8, 160, "10.99", (*EU, "sin")),
    ServerType(111, "cpx42", 8, 16, 320, "19.99", (*EU, "sin")),
    ServerType(112, "cpx52", 12, 24, 480, "28.49", (*EU, "sin")),
    ServerType(113, "cpx62", 16, 32, 640, "38.99", (*EU, "sin")),
    ServerType(114, "cx23", 2, 4, 40, "2.99", EU),
    ServerType(115, "cx33", 4, 8, 80, "4.99", EU),
    ServerType(116, "cx43", 8, 16, 160, "8.99", EU),
    ServerType(117, "cx53", 16, 32, 320, "16.99", EU),
)

LOAD_BALANCER_TYPES = (
    LoadBalancerType(1, "lb11", 5, 25, 10, 20_000, "5.39", 20 * TERABYTE),
    LoadBalancerType(2, "lb21", 15, 75, 25, 40_000, "14.90", 20 * TERABYTE),
    LoadBalancerType(3, "lb31", 30, 150, 50, 100_000, "29.90", 20 * TERABYTE),
)

_AUGUST_2025 = "2025-08-14T00:00:00+00:00"

IMAGES = (
    Image(45557056, "debian-11", "x86", "Debian 11", "debian", "11", deprecated=_AUGUST_2025),
    Image(67794396, "ubuntu-22.04", "x86", "Ubuntu 22.04", "ubuntu", "22.04"),
    Image(103908130, "ubuntu-22.04", "arm", "Ubuntu 22.04", "ubuntu", "22.04"),
    Image(114690387, "debian-12", "x86", "Debian 12", "debian", "12"),
    Image(114690389, "debian-12", "arm", "Debian 12", "debian", "12"),
    Image(161547269, "ubuntu-24.04", "x86", "Ubuntu 24.04", "ubuntu", "24.04"),
    Image(161547270, "ubuntu-24.04", "arm", "Ubuntu 24.04", "ubuntu", "24.04"),
    Image(310557660, "rocky-9", "x86", "Rocky Linux 9", "rocky", "9"),
    Image(310557661, "rocky-9", "arm", "Rocky Linux 9", "rocky", "9"),
    Image(310557662, "rocky-10", "x86", "Rocky Linux 10", "rocky", "10"),
    Image(310557663, "rocky-10", "arm", "Rocky Linux 10", "rocky", "10"),
    Image(310557670, "alma-9", "x86", "AlmaLinux 9", "alma", "9"),
    Image(310557671, "alma-9", "arm", "AlmaLinux 9", "alma", "9"),
    Image(310557672, "alma-10", "x86", "AlmaLinux 10", "alma", "10"),
    Image(310557673, "alma-10", "arm", "AlmaLinux 10", "alma", "10"),
    Image(310557680, "fedora-42", "x86", "Fedora 42", "fedora", "42"),
    Image(310557681, "fedora-42", "arm", "Fedora 42", "fedora", "42"),
    Image(310557690, "centos-stream-10", "x86", "CentOS Stream 10", "centos", "stream10"),
    Image(310557691, "centos-stream-10", "arm", "CentOS Stream 10", "centos", "stream10"),
    Image(310557700, "opensuse-15", "x86", "openSUSE Leap 15", "opensuse", "15"),
    Image(310557701, "opensuse-15", "arm", "openSUSE Leap 15", "opensuse", "15"),
    Image(310557764, "debian-13", "x86", "Debian 13", "debian", "13"),
    Image(310557765, "debian-13", "arm", "Debian 13", "debian", "13"),
    Image(40093140, "docker-ce", "x86", "Docker CE", "ubuntu", "24.04", type="app"),
    Image(105888141, "docker-ce", "arm", "Docker CE", "ubuntu", "24.04", type="app"),
)


ISOS = (
    Iso(122898, "systemrescue-12.02-amd64.iso", "SystemRescue 12.02", "x86"),
    Iso(122900, "debian-12.11.0-amd64-netinst.iso", "Debian 12.11 (amd64/netinstall)", "x86"),
    Iso(122901, "debian-12.11.0-arm64-netinst.iso", "Debian 12.11 (arm64/netinstall)", "arm"),
    Iso(122902, "debian-13.0.0-amd64-netinst.iso", "Debian 13.0 (amd64/netinstall)", "x86"),
    Iso(122903, "debian-13.0.0-arm64-netinst.iso", "Debian 13.0 (arm64/netinstall)", "arm"),
    Iso(122904, "ubuntu-24.04.2-live-server-arm64.iso", "Ubuntu 24.04.2 (arm64/server)", "arm"),
    Iso(122905, "virtio-win-0.1.271.iso", "virtio 0.1.271", None),
)


def find[Entry: (Location, ServerType, LoadBalancerType, Image)](
    entries: Iterable[Entry], ref: int | str, architecture: str | None = None
) -> Entry | None:
    """By id (a number or its digits) or by name; images also by architecture, because two share each name."""
    by_id = int(ref) if isinstance(ref, int) or ref.isdecimal() else None
    for entry in entries:
        if entry.id == by_id:
            return entry
        if entry.name == ref and architecture in (None, getattr(entry, "architecture", None)):
            return entry
    return None


@lru_cache(maxsize=256)
def server_type_shape(type: ServerType, sold_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`sold_out`: locations that are out of stock."""
    deprecation = type.deprecation.shape() if type.deprecation else None
    return {
        "id": type.id,
        "name": type.name,
        "description": type.name.upper(),
        "category": type.category,
        "cores": type.cores,
        "memory": type.memory,
        "disk": type.disk,
        "deprecated": type.withdrawn,
        "deprecation": deprecation if type.withdrawn else None,
        "prices": type.prices(),
        "storage_type": "local",
        "cpu_type": type.cpu_type,
        "architecture": type.architecture,
        "locations": [
            {
                "id": location.id,
                "name": location.name,
                "deprecation": deprecation if location.name in type.discontinued else None,
                "recommended": location.name in type.sold and type.deprecation is None,
                "available": location.name in type.sold and location.name not in sold_out,
            }
            for location in LOCATIONS
            if location.name in type.sold or location.name in type.discontinued
        ],
    }


def load_balancer_type_shape(type: LoadBalancerType) -> dict[str, Any]:
    return {
        "id": type.id,
        "name": type.name,
        "description": type.name.upper(),
        "max_connections": type.max_connections,
        "max_services": type.max_services,
        "max_targets": type.max_targets,
        "max_assigned_certificates": type.max_assigned_certificates,
        "deprecated": None,
        "deprecation": None,
        "prices": type.prices(),
    }


def pricing_shape() -> dict[str, Any]:
    def everywhere(hourly: str | None, monthly: str) -> list[dict[str, Any]]:
        return [
            {"location": name}
            | ({"price_hourly": _price(Decimal(hourly))} if hourly is not None else {})
            | {"price_monthly": _price(Decimal(monthly))}
            for name in ALL
        ]

    return {
        "currency": "EUR",
        "vat_rate": f"{VAT_RATE:.6f}",
        "primary_ips": [
            {"type": "ipv4", "prices": everywhere("0.0008", "0.5")},
            {"type": "ipv6", "prices": everywhere("0", "0")},
        ],
        "floating_ips": [
            {"type": "ipv4", "prices": everywhere(None, "3")},
            {"type": "ipv6", "prices": everywhere(None, "1")},
        ],
        "floating_ip": {"price_monthly": _price(Decimal(3))},
        "image": {"price_per_gb_month": _price(Decimal("0.011"))},
        "volume": {"price_per_gb_month": _price(Decimal("0.044"))},
        "server_backup": {"percentage": "20.0000000000"},
        "server_types": [{"id": type.id, "name": type.name, "prices": type.prices()} for type in SERVER_TYPES],
        "load_balancer_types": [
            {"id": type.id, "name": type.name, "prices": type.prices()} for type in LOAD_BALANCER_TYPES
        ],
    }
