"""The metadata service at 169.254.169.254."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.lab.cloud.conftest import Lab


@pytest.fixture
def server(lab: Lab, public_key: str) -> dict[str, Any]:
    key = lab.api.post("/ssh_keys", {"name": "key", "public_key": public_key})["ssh_key"]["id"]
    network = lab.network("net")["id"]
    made = lab.server("web-1", user_data="#cloud-config\n{}\n", networks=[network], ssh_keys=[key], location="hel1")
    lab.api.post(f"/servers/{made['id']}/actions/change_alias_ips", {"network": network, "alias_ips": ["10.0.1.9"]})
    shown: dict[str, Any] = lab.api.get(f"/servers/{made['id']}")["server"]
    return shown


def body(lab: Lab, server: dict[str, Any], path: str) -> str:
    answer = lab.cloud.metadata(server["id"], path)
    assert answer is not None and answer[0] == 200 and answer[1].startswith("text/")
    return answer[2]


def test_single_facts(lab: Lab, server: dict[str, Any]) -> None:
    facts = {
        "hostname": "web-1",
        "instance-id": str(server["id"]),
        "public-ipv4": server["public_net"]["ipv4"]["ip"],
        "availability-zone": "hel1-dc2",
        "region": "eu-central",
    }
    for name, value in facts.items():
        assert body(lab, server, f"/hetzner/v1/metadata/{name}") == value
    assert body(lab, server, "/hetzner/v1/userdata") == "#cloud-config\n{}\n"


def test_summary(lab: Lab, server: dict[str, Any], public_key: str) -> None:
    summary = yaml.safe_load(body(lab, server, "/hetzner/v1/metadata"))
    assert summary["instance-id"] == server["id"]
    assert summary["hostname"] == "web-1"
    assert summary["public-keys"] == [public_key]


def test_private_networks(lab: Lab, server: dict[str, Any]) -> None:
    [row] = yaml.safe_load(body(lab, server, "/hetzner/v1/metadata/private-networks"))
    attachment = server["private_net"][0]
    assert row == {
        "ip": attachment["ip"],
        "alias_ips": ["10.0.1.9"],
        "interface_num": 1,
        "mac_address": attachment["mac_address"],
        "network_id": attachment["network"],
        "network_name": "net",
        "network": "10.0.0.0/16",
        "subnet": "10.0.1.0/24",
        "gateway": "10.0.0.1",
    }


def test_unknown_paths(lab: Lab, server: dict[str, Any]) -> None:
    assert lab.cloud.metadata(server["id"], "/hetzner/v1/metadata/nothing") is None
    assert lab.cloud.metadata(server["id"], "/latest/meta-data") is None
    assert lab.cloud.metadata(1, "/hetzner/v1/metadata") is None


def test_a_host_without_public_address(lab: Lab) -> None:
    network = lab.network("net")["id"]
    made = lab.off(networks=[network], public_net={"enable_ipv4": False, "enable_ipv6": False})
    assert body(lab, made, "/hetzner/v1/metadata/public-ipv4") == ""
