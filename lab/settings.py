"""Names, folders, addresses and ports of a lab on this machine, all derived from its name and slot.

Several labs can exist in parallel (an operator's, the tests'): each has its own name and slot, and everything that it
creates on the machine contains the name or is in the slot's address range.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

SLOTS = 8
"""Maximum number of parallel labs: 198.18.0.0/16 is divided into this many /19 ranges of public addresses."""

DEFAULT_NAME = "lab"
IMAGES = ("prepared", "plain")
"""Host images with the packages that the roles install, or without them, as at Hetzner."""
STATE_ROOT = Path("/var/lib/slipway")
CACHE_ROOT = Path("/var/cache/slipway")


@dataclass(frozen=True, slots=True)
class Settings:
    """One lab on this machine.

    `name` is a lower-case word of at most 6 characters, because it is part of interface names (15 at most); `slot` is
    0 to 7 and determines every address and port; `images` is one of `IMAGES`.
    """

    name: str = DEFAULT_NAME
    slot: int = 0
    state_root: Path = STATE_ROOT
    cache_root: Path = CACHE_ROOT
    images: str = IMAGES[0]

    def __post_init__(self) -> None:
        if not (self.name.isascii() and self.name.isalnum() and self.name.islower() and len(self.name) <= 6):
            raise ValueError(
                f"SLIPWAY_LAB: {self.name!r} is not a valid name. Set 1 to 6 lower-case letters and digits."
            )
        if not 0 <= self.slot < SLOTS:
            raise ValueError(f"SLIPWAY_LAB_SLOT: {self.slot} is out of range. Set a number from 0 to {SLOTS - 1}.")
        if self.images not in IMAGES:
            raise ValueError(f"SLIPWAY_LAB_IMAGES: {self.images!r} is unknown. Set {' or '.join(IMAGES)}.")

    @classmethod
    def from_environment(cls) -> Settings:
        """Read `SLIPWAY_LAB` (name), `SLIPWAY_LAB_{SLOT,IMAGES}` and `SLIPWAY_{STATE,CACHE}_ROOT`."""
        slot = os.environ.get("SLIPWAY_LAB_SLOT", "0")
        if not slot.isdecimal():
            raise ValueError(f"SLIPWAY_LAB_SLOT: {slot!r} is not a number. Set a number from 0 to {SLOTS - 1}.")
        return cls(
            name=os.environ.get("SLIPWAY_LAB", DEFAULT_NAME),
            slot=int(slot),
            state_root=Path(os.environ.get("SLIPWAY_STATE_ROOT", str(STATE_ROOT))),
            cache_root=Path(os.environ.get("SLIPWAY_CACHE_ROOT", str(CACHE_ROOT))),
            images=os.environ.get("SLIPWAY_LAB_IMAGES", IMAGES[0]),
        )

    @property
    def state_dir(self) -> Path:
        """State of this lab: database, volumes, keys, CA, secrets, logs. Removed by `lab down`."""
        return self.state_root / self.name

    @property
    def cache_dir(self) -> Path:
        """Cache shared by all labs: host images, downloaded releases. Not removed by `lab down`."""
        return self.cache_root

    @property
    def database(self) -> Path:
        return self.state_dir / "cloud.sqlite3"

    @property
    def description(self) -> Path:
        """`lab.json`: the description of this lab for inventories and operators (see `lab.daemon`)."""
        return self.state_dir / "lab.json"

    @property
    def pki_dir(self) -> Path:
        """The certificate authority of this lab, and the certificates of what the lab serves itself."""
        return self.state_dir / "pki"

    @property
    def api_port(self) -> int:
        """The Hetzner Cloud API and the admin API, on 127.0.0.1."""
        return 8400 + 10 * self.slot

    @property
    def mirror_port(self) -> int:
        """The release mirror (HTTPS), on the uplink address."""
        return 8401 + 10 * self.slot

    @property
    def registry_port(self) -> int:
        """The image registry (HTTPS), on the uplink address."""
        return 8402 + 10 * self.slot

    @property
    def gitlab_port(self) -> int:
        """The simulation of GitLab (HTTPS), on the uplink address."""
        return 8405 + 10 * self.slot

    @property
    def gitlab_dir(self) -> Path:
        """Database, traces and artifacts of the simulation of GitLab."""
        return self.state_dir / "gitlab"

    @property
    def public_range(self) -> IPv4Network:
        """Public IPv4 addresses of hosts and floating addresses."""
        return IPv4Network((int(IPv4Address("198.18.0.0")) + self.slot * 2**13, 19))

    @property
    def public_range_v6(self) -> IPv6Network:
        """A /48 of documentation addresses; every host has a /64 of it."""
        return IPv6Network(f"2001:db8:{self.slot}::/48")

    @property
    def uplink_network(self) -> IPv4Network:
        """The /30 between this machine's root namespace (first address) and the lab's router (second)."""
        return IPv4Network((int(IPv4Address("198.19.255.0")) + 4 * self.slot, 30))

    @property
    def machine_address(self) -> IPv4Address:
        """Address of this machine for hosts: source of SSH and API calls, address of mirror and registry."""
        return self.uplink_network[1]

    @property
    def router_address(self) -> IPv4Address:
        return self.uplink_network[2]

    @property
    def uplink_interface(self) -> str:
        return f"{self.name}-up"

    @property
    def router_namespace(self) -> str:
        return f"{self.name}-router"

    def host_namespace(self, server_id: int) -> str:
        return f"{self.name}-h{server_id}"

    def network_namespace(self, network_id: int) -> str:
        return f"{self.name}-n{network_id}"

    def container_name(self, server_id: int) -> str:
        return f"{self.name}-h{server_id}"
