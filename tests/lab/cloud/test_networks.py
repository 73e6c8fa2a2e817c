from __future__ import annotations

from typing import Any

import pytest

from lab.machines.base import Route
from tests.lab.cloud.conftest import Api, Lab

ZONE = {"type": "cloud", "network_zone": "eu-central"}


def create(api: Api, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/networks", {"name": "net", "ip_range": "10.0.0.0/16"} | more)
    return made["network"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ip_range", "good"),
    [
        ("10.0.0.0/8", True),
        ("10.0.0.0/24", True),
        ("172.16.0.0/12", True),
        ("192.168.0.0/16", True),
        ("192.168.7.0/24", True),
        ("10.0.0.0/25", False),
        ("11.0.0.0/16", False),
        ("172.32.0.0/16", False),
        ("192.0.0.0/8", False),
        ("10.0.0.1/16", False),
        ("10.0.0.0", False),
        ("fd00::/8", False),
        ("ten", False),
        ("0.0.0.0/0", False),
    ],
)
def test_ranges(api: Api, ip_range: str, good: bool) -> None:
    status, _ = api("POST", "/networks", {"name": "net", "ip_range": ip_range})
    assert status == (201 if good else 422)


def test_the_gateway_of_every_subnet_is_the_first_address_of_the_network(api: Api) -> None:
    network = create(api, ip_range="10.0.0.0/16", subnets=[ZONE | {"ip_range": "10.0.16.0/24"}])
    assert network["subnets"] == [
        {
            "type": "cloud",
            "ip_range": "10.0.16.0/24",
            "network_zone": "eu-central",
            "gateway": "10.0.0.1",
            "vswitch_id": None,
        }
    ]


@pytest.mark.parametrize(
    ("subnet", "code"),
    [
        ({"ip_range": "10.0.2.0/24"}, None),
        ({"ip_range": "10.0.2.4/30"}, None),
        ({"ip_range": "10.0.2.4/31"}, "invalid_input"),
        ({"ip_range": "10.0.1.0/24"}, "invalid_input"),
        ({"ip_range": "10.0.1.128/25"}, "invalid_input"),
        ({"ip_range": "10.0.0.0/16"}, "invalid_input"),
        ({"ip_range": "10.1.0.0/24"}, "invalid_input"),
        ({"ip_range": "10.0.50.0/24"}, "invalid_input"),  # destination of a route
        ({"ip_range": "10.0.2.1/24"}, "invalid_input"),
        ({"network_zone": "us-east"}, "invalid_input"),
        ({"network_zone": "mars"}, "invalid_input"),
        ({"type": "vswitch", "vswitch_id": 7}, "service_error"),
        ({"vswitch_id": 7}, "invalid_input"),
        ({"type": "lan"}, "invalid_input"),
        ({"network_zone": None}, "invalid_input"),
    ],
)
def test_subnets(api: Api, subnet: dict[str, Any], code: str | None) -> None:
    network = create(
        api,
        subnets=[ZONE | {"ip_range": "10.0.1.0/24"}],
        routes=[
            {"destination": "10.0.50.0/24", "gateway": "10.0.1.9"},
            {"destination": "0.0.0.0/0", "gateway": "10.0.1.9"},
        ],
    )
    path = f"/networks/{network['id']}"
    status, payload = api("POST", f"{path}/actions/add_subnet", ZONE | subnet)
    assert status == 201 if code is None else payload["error"]["code"] == code
    ranges = [row["ip_range"] for row in api.get(path)["network"]["subnets"]]
    assert ranges == ["10.0.1.0/24"] + ([] if code else [subnet["ip_range"]])


def test_a_subnet_without_range_is_the_first_free_one(api: Api) -> None:
    network = create(api, subnets=[ZONE, ZONE | {"ip_range": "10.0.1.0/25"}, ZONE])
    assert [row["ip_range"] for row in network["subnets"]] == ["10.0.0.0/24", "10.0.1.0/25", "10.0.2.0/24"]


@pytest.mark.parametrize(
    ("destination", "gateway", "good"),
    [
        ("10.100.0.0/16", "10.0.1.5", True),
        ("192.168.0.0/24", "10.0.1.5", True),
        ("0.0.0.0/0", "10.0.1.5", True),
        ("10.200.1.1/32", "10.0.1.5", True),
        ("10.0.1.0/24", "10.0.1.5", False),  # a subnet
        ("10.50.0.0/24", "10.0.1.6", False),  # routed already, elsewhere
        ("10.50.0.0/24", "10.0.1.5", False),  # routed already, the same
        ("10.50.0.0/16", "10.0.1.5", False),
        ("8.8.8.0/24", "10.0.1.5", False),
        ("10.100.0.1/16", "10.0.1.5", False),
        ("10.100.0.0/16", "10.0.0.1", False),  # the network's first address
        ("10.100.0.0/16", "172.31.1.1", False),
        ("10.100.0.0/16", "10.9.0.1", False),
        ("10.100.0.0/16", "gateway", False),
    ],
)
def test_routes(lab: Lab, destination: str, gateway: str, good: bool) -> None:
    first = {"destination": "10.50.0.0/24", "gateway": "10.0.1.5"}
    network = create(lab.api, subnets=[ZONE | {"ip_range": "10.0.1.0/24"}], routes=[first])
    body = {"destination": destination, "gateway": gateway}
    status, payload = lab.api("POST", f"/networks/{network['id']}/actions/add_route", body)
    assert status == 201 if good else payload["error"]["code"] == "invalid_input"
    lab.wait_idle()
    expected = (Route("10.50.0.0/24", "10.0.1.5"), *([Route(destination, gateway)] if good else []))
    assert lab.machines.networks[network["id"]].routes == expected


def test_deleting_unknown_subnets_and_routes(api: Api) -> None:
    network = create(api, subnets=[ZONE | {"ip_range": "10.0.1.0/24"}])
    actions = f"/networks/{network['id']}/actions"
    assert api.code("POST", f"{actions}/delete_subnet", {"ip_range": "10.0.2.0/24"}) == "invalid_input"
    assert (
        api.code("POST", f"{actions}/delete_route", {"destination": "10.9.0.0/16", "gateway": "10.0.1.2"})
        == "invalid_input"
    )


@pytest.mark.parametrize(
    ("ip_range", "good"),
    [
        ("10.0.0.0/15", True),
        ("10.0.0.0/16", True),
        ("10.0.0.0/17", False),
        ("10.1.0.0/15", False),
        ("10.2.0.0/16", False),
    ],
)
def test_a_range_only_grows(api: Api, ip_range: str, good: bool) -> None:
    path = f"/networks/{create(api)['id']}"
    status, _ = api("POST", f"{path}/actions/change_ip_range", {"ip_range": ip_range})
    assert status == (201 if good else 422)
    assert api.get(path)["network"]["ip_range"] == (ip_range if good else "10.0.0.0/16")


def test_protection(api: Api) -> None:
    path = f"/networks/{create(api)['id']}"
    api.post(f"{path}/actions/change_protection", {"delete": True})
    status, payload = api("DELETE", path)
    assert (status, payload["error"]["message"]) == (423, "network is delete protected")
    api.post(f"{path}/actions/change_protection", {})
    assert api.get(path)["network"]["protection"] == {"delete": True}
    api.post(f"{path}/actions/change_protection", {"delete": False})
    assert api("DELETE", path) == (204, None)


def test_deleting_a_network_detaches_everything(lab: Lab) -> None:
    network = lab.network()
    server = lab.server(networks=[network["id"]])
    assert lab.api.get(f"/networks/{network['id']}")["network"]["servers"] == [server["id"]]
    status, payload = lab.api("POST", f"/networks/{network['id']}/actions/delete_subnet", {"ip_range": "10.0.1.0/24"})
    assert (status, payload["error"]["code"]) == (422, "service_error")
    lab.api.delete(f"/networks/{network['id']}")
    assert lab.api.get(f"/servers/{server['id']}")["server"]["private_net"] == []


# Attachments


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({}, "10.0.2.2"),  # the newest subnet, its first free address
        ({"ip": "10.0.1.77"}, "10.0.1.77"),
        ({"ip": "10.0.2.254"}, "10.0.2.254"),
        ({"ip": "10.0.2.1"}, "ip_not_available"),  # another server's
        ({"ip": "10.0.2.9"}, "ip_not_available"),  # another server's alias
        ({"ip": "10.0.0.1"}, "ip_not_available"),  # the gateway
        ({"ip": "10.0.2.0"}, "ip_not_available"),
        ({"ip": "10.0.2.255"}, "ip_not_available"),
        ({"ip": "10.0.3.1"}, "ip_not_available"),
        ({"ip": "x"}, "invalid_input"),
        ({"ip_range": "10.0.1.0/24"}, "10.0.1.1"),
        ({"ip_range": "10.0.0.0/24"}, "10.0.0.2"),  # .1 is the gateway
        ({"ip_range": "10.0.9.0/24"}, "no_subnet_available"),
        ({"ip_range": "10.0.1.0/24", "ip": "10.0.2.7"}, "ip_not_available"),
        ({"alias_ips": ["10.0.1.50", "10.0.2.50"]}, "10.0.2.2"),
        ({"alias_ips": ["10.0.2.9"]}, "ip_not_available"),
        ({"alias_ips": ["10.0.2.2"]}, "ip_not_available"),  # its own
        ({"alias_ips": [f"10.0.1.{n}" for n in range(10, 16)]}, "invalid_input"),
    ],
)
def test_attaching(lab: Lab, body: dict[str, Any], result: str) -> None:
    subnets = [ZONE | {"ip_range": f"10.0.{number}.0/24"} for number in (0, 1, 2)]
    network = create(lab.api, subnets=subnets)
    other = lab.server("other", networks=[network["id"]])
    assert other["private_net"][0]["ip"] == "10.0.2.1"
    lab.api.post(
        f"/servers/{other['id']}/actions/change_alias_ips", {"network": network["id"], "alias_ips": ["10.0.2.9"]}
    )
    server = lab.server()
    path = f"/servers/{server['id']}"
    status, payload = lab.api("POST", f"{path}/actions/attach_to_network", {"network": network["id"]} | body)
    attachments = lab.api.get(path)["server"]["private_net"]
    if status == 201:
        assert [(attachment["ip"], attachment["alias_ips"]) for attachment in attachments] == [
            (result, body.get("alias_ips", []))
        ]
        assert attachments[0]["mac_address"].startswith("86:00:00:")
        lab.wait_idle()
        assert lab.machines.attachments[server["id"], network["id"]].interface == "enp7s0"
    else:
        assert (payload["error"]["code"], attachments) == (result, [])


def test_interfaces_keep_their_number(lab: Lab) -> None:
    networks = [lab.network(f"n{n}", f"10.{n}.0.0/16", f"10.{n}.1.0/24")["id"] for n in range(4)]
    server = lab.server(networks=networks[:3])["id"]
    actions = f"/servers/{server}/actions"

    def interfaces() -> dict[int, str]:
        lab.wait_idle()
        return {network: attachment.interface for (_, network), attachment in lab.machines.attachments.items()}

    assert interfaces() == dict(zip(networks[:3], ("enp7s0", "enp8s0", "enp9s0"), strict=True))
    assert lab.api.code("POST", f"{actions}/attach_to_network", {"network": networks[3]}) == "resource_limit_exceeded"
    lab.api.post(f"{actions}/detach_from_network", {"network": networks[1]})
    lab.api.post(f"{actions}/attach_to_network", {"network": networks[3]})
    assert interfaces() == {networks[0]: "enp7s0", networks[2]: "enp9s0", networks[3]: "enp8s0"}


def test_attaching_twice_or_to_overlapping_networks(lab: Lab) -> None:
    first, second = lab.network("one"), lab.network("two", "10.0.0.0/8", "10.0.1.0/24")
    server = lab.server(networks=[first["id"]])
    actions = f"/servers/{server['id']}/actions"
    assert lab.api.code("POST", f"{actions}/attach_to_network", {"network": first["id"]}) == "server_already_attached"
    assert lab.api.code("POST", f"{actions}/attach_to_network", {"network": second["id"]}) == "networks_overlap"
    assert lab.api.code("POST", f"{actions}/detach_from_network", {"network": second["id"]}) == "invalid_input"
    assert (
        lab.api.code("POST", f"{actions}/change_alias_ips", {"network": second["id"], "alias_ips": []})
        == "invalid_input"
    )
    assert lab.api.code("POST", f"{actions}/attach_to_network", {"network": 1}) == "not_found"


def test_a_network_of_another_zone_has_no_subnet(lab: Lab) -> None:
    network = create(lab.api, subnets=[{"type": "cloud", "network_zone": "us-east", "ip_range": "10.0.1.0/24"}])
    server = lab.server()
    body = {"network": network["id"]}
    assert lab.api.code("POST", f"/servers/{server['id']}/actions/attach_to_network", body) == "no_subnet_available"


def test_a_full_subnet(lab: Lab) -> None:
    network = create(lab.api, subnets=[ZONE | {"ip_range": "10.0.1.0/30"}])
    for number in range(2):
        lab.off(f"s{number}", networks=[network["id"]])
    body = {"name": "s2", "server_type": "cx23", "image": "debian-13", "networks": [network["id"]]}
    assert lab.api.code("POST", "/servers", body) == "no_subnet_available"


def test_members(lab: Lab) -> None:
    network = create(lab.api, subnets=[ZONE | {"ip_range": "10.0.1.0/24"}, ZONE | {"ip_range": "10.0.2.0/24"}])
    ids = [lab.off(f"s{number}", networks=[network["id"]])["id"] for number in range(2)]
    lab.api.post(f"/servers/{ids[0]}/actions/detach_from_network", {"network": network["id"]})
    lab.api.post(f"/servers/{ids[0]}/actions/attach_to_network", {"network": network["id"], "ip": "10.0.1.5"})
    path = f"/networks/{network['id']}/members"
    assert [row["id"] for row in lab.api.get(path)["members"]] == ids
    assert [row["id"] for row in lab.api.get(path, sort="id:desc", status="ok", type="server")["members"]] == ids[::-1]
    assert lab.api.get(path, type="load_balancer")["members"] == []
    [row] = lab.api.get(path, subnet="10.0.1.0/24")["members"]
    assert row == {
        "id": ids[0], "type": "server", "ip": "10.0.1.5", "alias_ips": [], "subnet": "10.0.1.0/24", "status": "ok"
    }  # fmt: skip
