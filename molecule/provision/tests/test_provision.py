"""The provisioned objects, by the cloud's API and on the machines themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import testinfra
from hcloud import Client
from testinfra.host import Host

testinfra_hosts = ["local://"]

STATE = Path(os.environ.get("SLIPWAY_STATE_ROOT", "/var/lib/slipway")) / os.environ.get("SLIPWAY_LAB", "lab")
MACHINES = {
    "trial-lb-1": ("load_balancer", "10.96.1.10"),
    "trial-rke2-server-1": ("rke2_server", "10.96.1.21"),
    "trial-rke2-agent-1": ("rke2_agent", "10.96.1.41"),
}


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    return dict(json.loads((STATE / "lab.json").read_text()))


@pytest.fixture(scope="module")
def cloud(lab: dict[str, Any]) -> Client:
    return Client(token=lab["token"], api_endpoint=lab["api_endpoint"])


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inside(machine: str, cloud: Client, lab: dict[str, Any]) -> Host:
    server = cloud.servers.get_by_name(machine)
    assert server is not None
    options = f"-o UserKnownHostsFile={STATE}/trial/known_hosts -o HostKeyAlias={machine}.{server.id}"
    address = server.public_net.ipv4.ip
    return testinfra.get_host(
        f"ssh://slipway@{address}?ssh_identity_file={lab['ssh_private_key_path']}", ssh_extra_args=options
    )


def test_server_is_as_declared(machine: str, cloud: Client) -> None:
    group, private_ip = MACHINES[machine]
    server = cloud.servers.get_by_name(machine)
    assert server is not None
    assert server.status == "running"
    assert server.labels == {"slipway_environment": "trial", "slipway_group": group, "managed-by": "slipway"}
    assert [(leg.network.name, leg.ip) for leg in server.private_net] == [("trial", private_ip)]
    # fsn1 is first in the list and was sold out.
    assert (server.server_type.name, server.location.name) == ("cx23", "nbg1")
    assert server.placement_group.name == "trial-trial"
    assert [volume.name for volume in server.volumes] == [f"{machine}-data"]
    wanted = {"trial", "trial-load_balancer"} if group == "load_balancer" else {"trial"}
    assert {entry.firewall.name for entry in server.public_net.firewalls} == wanted


def test_the_store_is_outside_of_the_environment_and_has_its_public_name(cloud: Client) -> None:
    server = cloud.servers.get_by_name("trial-store-1")
    assert server is not None
    assert server.labels["slipway_environment"] == "trial-store"
    assert [leg.network.name for leg in server.private_net] == ["trial-store"]
    assert server.public_net.ipv4.dns_ptr == "s3.trial.slipway.test"
    ports = {
        (rule.protocol, rule.port, "0.0.0.0/0" in rule.source_ips)
        for entry in server.public_net.firewalls
        for rule in cloud.firewalls.get_by_id(entry.firewall.id).rules
    }
    assert ports == {("tcp", "22", False), ("icmp", None, False), ("tcp", "443", True)}


def test_only_the_load_balancer_is_open_to_the_world(cloud: Client) -> None:
    world = {
        (firewall.name, rule.port)
        for firewall in cloud.firewalls.get_all(label_selector="slipway_environment=trial")
        for rule in firewall.rules
        if "0.0.0.0/0" in rule.source_ips
    }
    assert world == {("trial-load_balancer", "80"), ("trial-load_balancer", "443")}


def test_the_administrator_can_log_in_and_become_root(inside: Host) -> None:
    assert inside.check_output("whoami") == "slipway"
    assert inside.check_output("sudo --non-interactive whoami") == "root"
    assert inside.check_output("sudo passwd --status slipway").split()[1] == "L"


def test_the_machine_has_its_name_address_and_volume(machine: str, inside: Host, cloud: Client) -> None:
    assert inside.check_output("uname --nodename") == machine
    assert MACHINES[machine][1] in inside.interface("enp7s0").addresses
    volume = cloud.volumes.get_by_name(f"{machine}-data")
    assert volume is not None
    assert inside.file(volume.linux_device).exists


def test_user_data_holds_no_secret(inside: Host) -> None:
    secrets = (STATE / "secrets.yml").read_text()
    token = next(line.split(": ")[1] for line in secrets.splitlines() if line.startswith("rke2_token: "))
    user_data = inside.check_output("sudo cat /var/lib/cloud/instance/user-data.txt")
    assert "slipway" in user_data
    assert token not in user_data and "password" not in user_data.replace("lock_passwd", "")
