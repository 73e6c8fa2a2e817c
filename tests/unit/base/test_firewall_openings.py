"""The port matrix: every opening declares its peers, and an invalid matrix is rejected with a message."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.platform.plugins.filter.firewall_openings import (
    closed_inside,
    closed_ports,
    firewall_openings,
    openings_admit,
    public_openings,
)

from tests.playbooks import REPOSITORY

GROUPS = {
    "all": ["lb", "s1", "s2", "a1"],
    "load_balancer": ["lb"],
    "servers": ["s1", "s2"],
    "agents": ["a1"],
    "ceph": [],
}
ADDRESSES = {"lb": "10.0.1.10", "s1": "10.0.1.21", "s2": "10.0.1.22", "a1": "10.0.1.41"}
ADMINS = ["203.0.113.0/24", "2001:db8::/48"]


def opening(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "to": ["servers"], "from": ["servers"], "protocol": "tcp", "ports": [6443]} | changes


def resolve(*matrix: dict[str, Any], host: str = "s1") -> list[dict[str, Any]]:
    return firewall_openings(matrix, host, GROUPS, ADDRESSES, ADMINS)


@pytest.mark.parametrize(
    ("changes", "host", "sources", "world"),
    [
        ({}, "s1", ["10.0.1.22/32"], False),
        ({}, "s2", ["10.0.1.21/32"], False),
        (
            {"from": ["servers", "agents", "load_balancer"]},
            "s1",
            ["10.0.1.10/32", "10.0.1.22/32", "10.0.1.41/32"],
            False,
        ),
        ({"from": ["admins"]}, "s1", ["203.0.113.0/24", "2001:db8::/48"], False),
        ({"from": ["admins", "agents"]}, "s1", ["10.0.1.41/32", "203.0.113.0/24", "2001:db8::/48"], False),
        ({"from": ["world", "agents"]}, "s1", [], True),
        ({"to": ["all"], "from": ["all"]}, "lb", ["10.0.1.21/32", "10.0.1.22/32", "10.0.1.41/32"], False),
    ],
)
def test_sources(changes: dict[str, Any], host: str, sources: list[str], world: bool) -> None:
    found = resolve(opening(**changes), host=host)
    assert found == [{"name": "x", "protocol": "tcp", "ports": ["6443"], "world": world, "sources": sources}]


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        ({}, "lb"),
        ({"from": ["ceph"]}, "s1"),
        ({"to": ["agents"], "from": ["agents"]}, "a1"),
        ({"to": ["ceph"], "from": ["world"]}, "s1"),
    ],
)
def test_an_opening_without_sources_is_omitted(changes: dict[str, Any], host: str) -> None:
    assert resolve(opening(**changes), host=host) == []


@pytest.mark.parametrize(
    ("ports", "rendered"), [([80, 443], ["80", "443"]), (["2379-2381"], ["2379-2381"]), (22, ["22"]), (["022"], ["22"])]
)
def test_ports(ports: Any, rendered: list[str]) -> None:
    assert resolve(opening(ports=ports))[0]["ports"] == rendered


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ports": [0]}, "has the port 0; give numbers from 1 to 65535"),
        ({"ports": [65536]}, "has the port 65536"),
        ({"ports": ["9-1"]}, "has the port '9-1'"),
        ({"ports": ["http"]}, "has the port 'http'"),
        ({"ports": ["1-2-3"]}, "has the port '1-2-3'"),
        ({"ports": []}, "names no port"),
        ({"protocol": "icmp"}, "has the protocol 'icmp'; use tcp or udp"),
        ({"to": ["server"]}, "names the group 'server', which the inventory does not have"),
        ({"from": ["postgresql"]}, "names the group 'postgresql'"),
        ({"from": []}, "has from: []; give a list of at least one group"),
        ({"to": "servers"}, "has to: 'servers'; give a list"),
        ({"port": 1}, r"needs exactly the keys .*; correct \['port'\]"),
    ],
)
def test_an_invalid_matrix_is_rejected(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleFilterError, match=sentence.replace("[]", r"\[\]")):
        resolve(opening(**changes))


def test_a_peer_without_an_address_is_rejected() -> None:
    with pytest.raises(AnsibleFilterError, match="s2, which has no private address; set provision_private_ip"):
        firewall_openings([opening()], "s1", GROUPS, {"s1": "10.0.1.21"}, ADMINS)


@pytest.mark.parametrize(
    ("address", "port", "protocol", "admitted"),
    [
        ("203.0.113.9", 22, "tcp", True),
        ("2001:db8::5", 22, "tcp", True),
        ("203.0.114.9", 22, "tcp", False),
        ("203.0.113.9", 2222, "tcp", False),
        ("203.0.113.9", 22, "udp", False),
        ("192.0.2.1", 443, "tcp", True),
        ("10.0.1.22", 30005, "tcp", True),
        ("10.0.1.22", 32768, "tcp", False),
    ],
)
def test_accepted_connections(address: str, port: int, protocol: str, admitted: bool) -> None:
    openings = resolve(
        opening(name="ssh", **{"from": ["admins"]}, ports=[22]),
        opening(name="web", **{"from": ["world"]}, ports=[80, 443]),
        opening(name="range", ports=["30000-32767"]),
    )
    assert openings_admit(openings, address, protocol, port) is admitted


def test_an_invalid_address_is_rejected() -> None:
    with pytest.raises(AnsibleFilterError, match="'somewhere' is not an IP address"):
        openings_admit([], "somewhere", "tcp", 22)


MATRIX = yaml.safe_load((REPOSITORY / "playbooks/vars/port_matrix.yml").read_text())["port_matrix"]
PLATFORM = {
    "load_balancer": ["lb"],
    "rke2_server": ["server"],
    "rke2_agent": ["agent"],
    "ceph": ["ceph"],
    "postgresql": ["db"],
    "object_storage": ["store"],
}
HOSTS = ["localhost", *(host for hosts in PLATFORM.values() for host in hosts)]
WORLD = ["0.0.0.0/0", "::/0"]


def test_the_cloud_firewalls_derive_from_the_port_matrix() -> None:
    openings = public_openings(MATRIX, ADMINS)
    assert [(opening.get("group"), opening["port"], opening["sources"]) for opening in openings] == [
        (None, "22", ADMINS),
        ("load_balancer", "80", WORLD),
        ("load_balancer", "443", WORLD),
        ("load_balancer", "6443", ADMINS),
    ]
    assert {opening["protocol"] for opening in openings} == {"tcp"}


def test_the_probes_of_closed_ports_derive_from_the_port_matrix() -> None:
    (play, _) = yaml.safe_load((REPOSITORY / "playbooks/verify.yml").read_text())
    assert closed_ports(MATRIX, HOSTS, PLATFORM, play["vars"]["undeclared_ports"]) == {
        "lb": [9345],
        "server": [80, 443, 2379, 2380, 2381, 6443, 9099, 9345, 10250],
        "agent": [80, 443, 2379, 2380, 2381, 6443, 9099, 9345, 10250],
        "ceph": [3300, 6789, *range(6800, 6812), 7000, 7480, 7568, 8443, 8765, 9283],
        "db": [5432, 6432, 9187],
        "store": [3300, 6789, 6800, 7000, 8443, 8765, 9283],
    }


def test_a_port_that_another_group_of_the_host_opens_is_not_probed_as_closed() -> None:
    shared = PLATFORM | {"rke2_server": ["lb"]}
    assert closed_ports(MATRIX, ["lb"], shared, {}) == {"lb": [2379, 2380, 2381, 9099, 9345, 10250]}


def test_every_host_of_the_environments_is_probed_by_another_one() -> None:
    (play, _) = yaml.safe_load((REPOSITORY / "playbooks/verify.yml").read_text())
    hosts = ["lb", "server", "agent", "ceph", "db", "store", "runner"]
    groups = PLATFORM | {"all": hosts, "gitlab_runner": ["runner"]}
    addresses = {host: f"10.0.1.{number}" for number, host in enumerate(hosts, 1)}
    further = play["vars"]["undeclared_ports"]
    found = {host: closed_inside(MATRIX, host, hosts, groups, addresses, ADMINS, further) for host in hosts}
    assert {probe["name"] for probes in found.values() for probe in probes} == set(hosts)
    for source, listed in found.items():
        assert [probe["kind"] for probe in listed] == ["ping"] + ["closed"] * (len(listed) - 1)
        assert {probe["source"] for probe in listed} == {source} and source not in {probe["name"] for probe in listed}


def test_a_port_that_is_open_to_a_host_is_not_probed_by_it() -> None:
    matrix = [opening(**{"to": ["all"], "from": ["admins"], "ports": [22]}), opening(**{"from": ["agents"]})]
    arguments = (["s1", "a1", "lb"], GROUPS, ADDRESSES, ADMINS, {})
    assert [probe.get("port") for probe in closed_inside(matrix, "lb", *arguments)] == [None, 22, 6443]
    assert [probe.get("port") for probe in closed_inside(matrix, "s1", *arguments)] == [None, 22]
    # Of two hosts, one that may reach everything has nothing to probe.
    everything = [opening(**{"to": ["all"], "from": ["all"], "ports": [22]})]
    assert closed_inside(everything, "s1", *arguments) == []
