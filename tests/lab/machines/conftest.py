"""A small lab of three hosts, created once for all tests marked `real`.

web 1, db 2   in network 50        other 3   in network 51, which has the same range
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.machines import namespaces
from lab.machines.base import AttachmentSpec, Desired, ExitReason, HostSpec, NetworkSpec
from lab.machines.podman import PodmanMachines
from lab.settings import SLOTS, Settings

RANGE = "10.40.0.0/16"
NETWORKS = (NetworkSpec(50, "one", RANGE), NetworkSpec(51, "two", RANGE))
LEGS = (
    AttachmentSpec(1, 50, "10.40.1.10", "86:00:00:00:00:01", "enp7s0"),
    AttachmentSpec(2, 50, "10.40.1.11", "86:00:00:00:00:02", "enp7s0", ("10.40.1.50",)),
    AttachmentSpec(3, 51, "10.40.1.10", "86:00:00:00:00:03", "enp7s0"),
)
NAMES = {1: "web", 2: "db", 3: "other"}
USER_DATA = """\
#cloud-config
users:
  - name: slipway
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: ["{key}"]
write_files:
  - {{path: /etc/motd, content: "written by cloud-init\\n", permissions: "0640"}}
runcmd:
  - echo ran >> /root/ran
"""


@dataclass
class Lab:
    """One lab, its backend, and helpers that run commands in its hosts."""

    settings: Settings
    key: Path
    specs: dict[int, HostSpec] = field(default_factory=dict)
    exits: list[tuple[int, ExitReason]] = field(default_factory=list)
    machines: PodmanMachines = field(init=False)

    def __post_init__(self) -> None:
        self.machines = self.fresh_machines()

    def fresh_machines(self) -> PodmanMachines:
        """The backend of a restarted daemon, without state."""
        return PodmanMachines(self.settings, self.metadata, lambda *end: self.exits.append(end))

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    def metadata(self, server_id: int, path: str) -> tuple[int, str, str] | None:
        spec = self.specs[server_id]
        values = {"instance-id": server_id, "hostname": spec.name, "public-keys": [self.public_key]}
        answers = {
            "/hetzner/v1/metadata": json.dumps(values),
            "/hetzner/v1/metadata/instance-id": str(server_id),
            "/hetzner/v1/metadata/hostname": spec.name,
            "/hetzner/v1/metadata/private-networks": "[]",
            "/hetzner/v1/userdata": spec.user_data,
        }
        return (200, "text/plain", answers[path]) if path in answers else None

    def spec(self, server_id: int, **changes: object) -> HostSpec:
        values: dict[str, object] = {
            "server_id": server_id,
            "name": NAMES.get(server_id, f"server-{server_id}"),
            "image": "debian-13",
            "cores": 2,
            "memory_gb": 2,
            "disk_gb": 20,
            "ipv4": str(self.settings.public_range[10 + server_id]),
            "ipv6_network": str(self.settings.public_range_v6[server_id << 64]) + "/64",
            "user_data": USER_DATA.format(key=self.public_key),
        }
        spec = HostSpec(**{**values, **changes})  # type: ignore[arg-type]
        self.specs[server_id] = spec
        return spec

    def boot(self, spec: HostSpec) -> None:
        self.machines.create_host(spec)
        self.machines.power_on(spec)
        self.wait_for_ssh(spec.server_id)

    def address(self, server_id: int) -> str:
        return self.specs[server_id].ipv4 or self.specs[server_id].ipv6_network.replace("::/64", "::1")  # type: ignore[union-attr]

    def ssh(self, server_id: int, command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        argv = ["ssh", "-i", str(self.key), *(f"-o{option}" for option in (*options, "ConnectTimeout=5"))]
        return subprocess.run(
            [*argv, f"{user}@{self.address(server_id)}", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, server_id: int, command: str) -> subprocess.CompletedProcess[str]:
        """Run as root in the host, without SSH: faster, and independent of the network."""
        pid = (self.settings.state_dir / f"machines/servers/{server_id}/pid").read_text().strip()
        return subprocess.run(
            ["nsenter", f"--target={pid}", "--all", "--", "/bin/bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        )

    def output(self, server_id: int, command: str) -> str:
        done = self.run(server_id, command)
        assert done.returncode == 0, f"`{command}` on {server_id}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def succeeds(self, server_id: int, command: str) -> bool:
        return self.run(server_id, command).returncode == 0

    def logs_in(self, server_id: int) -> bool:
        return self.ssh(server_id, "true").returncode == 0

    def wait_for_ssh(self, server_id: int, seconds: float = 60) -> None:
        assert wait(lambda: self.logs_in(server_id), seconds), self.machines.console_log(server_id)[-2000:]

    def answers(self, server_id: int, port: int = 22) -> bool:
        try:
            socket.create_connection((self.address(server_id), port), 1).close()
        except OSError:
            return False
        return True

    def desired(self, **changes: object) -> Desired:
        """The desired state of the shared hosts and networks."""
        hosts = tuple(self.specs[server_id] for server_id in NAMES)
        values: dict[str, object] = {
            "hosts": hosts,
            "running": frozenset(NAMES),
            "networks": NETWORKS,
            "attachments": LEGS,
        }
        return Desired(**{**values, **changes})  # type: ignore[arg-type]

    def leftovers(self) -> list[str]:
        """Objects on this machine that have this lab's name."""
        name = self.settings.name
        commands = {
            "container": ["podman", "ps", "--all", "--format", "{{.Names}}"],
            "table": ["nft", "list", "tables"],
            "loop device": ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"],
            "route": ["ip", "route"],
            "process": ["ps", "-e", "-o", "args"],
        }
        found = [f"namespace {item}" for item in namespaces.existing() if item.startswith(f"{name}-")]
        found += [f"link {item}" for item in namespaces.links(None) if item.startswith(f"{name}-")]
        found += [
            f"mount {line.split()[4]}"
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4].startswith(f"{self.settings.state_dir}/")
        ]
        words = (f"{name}-h", f"slipway_{name}", f"{self.settings.state_dir}/", f"{name}-up")
        for kind, argv in commands.items():
            lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
            found += [f"{kind} {line}" for line in lines if any(word in line + "\n" for word in words)]
        return found


def wait(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def free_slot() -> int:
    """A slot that no lab on this machine uses."""
    used = {item["local"] for row in namespaces.query(None, "addr", "show") for item in row.get("addr_info", [])}
    return next(slot for slot in range(SLOTS) if str(Settings("x", slot).machine_address) not in used)


def own_settings() -> Settings:
    """The lab of the tests: `test` in slot 1, unless the environment names another."""
    from os import environ

    environ.setdefault("SLIPWAY_LAB", "test")
    environ.setdefault("SLIPWAY_LAB_SLOT", "1")
    return Settings.from_environment()


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def lab(key: Path) -> Iterator[Lab]:
    settings = own_settings()
    if settings.database.exists():
        pytest.fail(
            f"lab {settings.name} is up. Run `lab down`, or set SLIPWAY_LAB and SLIPWAY_LAB_SLOT to another lab."
        )
    lab = Lab(settings, key)
    lab.machines.destroy()
    try:
        for network in NETWORKS:
            lab.machines.apply_network(network)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lab.boot, [lab.spec(server_id) for server_id in NAMES]))
        for leg in LEGS:
            lab.machines.attach(leg)
        yield lab
    finally:
        lab.machines.destroy()
    assert lab.leftovers() == []


@pytest.fixture
def spare(lab: Lab) -> Iterator[HostSpec]:
    """A fourth host for one test, off."""
    spec = lab.spec(4)
    lab.machines.create_host(spec)
    yield spec
    lab.machines.delete_host(4)
