from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network
from typing import Any

import pytest

from tests.lab.cloud.conftest import Api, Lab


def create(api: Api, **more: Any) -> dict[str, Any]:
    body = {"name": "floating", "type": "ipv4", "home_location": "fsn1"} | more
    made: dict[str, Any] = api.post("/floating_ips", body)["floating_ip"]
    return made


def routed(lab: Lab) -> dict[int, tuple[str, ...]]:
    """Floating addresses of each host, as its machine has them."""
    lab.wait_idle()
    return {spec.server_id: spec.floating_ips for spec in lab.machines.hosts.values() if spec.floating_ips}


def test_addresses_are_distinct_from_primary_ips(lab: Lab) -> None:
    server = lab.off()
    v4, v6 = create(lab.api), create(lab.api, name="v6", type="ipv6")
    assert IPv4Address(v4["ip"]) in lab.cloud.settings.public_range
    assert IPv6Network(v6["ip"]).prefixlen == 64
    assert not {v4["ip"], v6["ip"]} & {server["public_net"][kind]["ip"] for kind in ("ipv4", "ipv6")}
    later = lab.off("later")["public_net"]
    assert not {v4["ip"], v6["ip"]} & {later[kind]["ip"] for kind in ("ipv4", "ipv6")}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"home_location": 3}, None),
        ({"name": None}, None),
        ({"description": "web", "labels": {"a": "b"}}, None),
        ({"type": "ipv5"}, "invalid_input"),
        ({"type": None}, "invalid_input"),
        ({"home_location": None}, "invalid_input"),
        ({"home_location": "moon"}, "invalid_input"),
        ({"server": 1}, "not_found"),
        ({"labels": {"a": "-"}}, "invalid_input"),
    ],
)
def test_creating(api: Api, change: dict[str, Any], code: str | None) -> None:
    body = {"name": "floating", "type": "ipv4", "home_location": "fsn1"} | change
    status, payload = api("POST", "/floating_ips", body)
    assert status == 201 if code is None else payload["error"]["code"] == code
    assert len(api.get("/floating_ips")["floating_ips"]) == (code is None)


def test_an_unknown_location_is_reported_in_the_words_of_hetzner(api: Api) -> None:
    body = {"name": "floating", "type": "ipv4", "home_location": "abc"}
    assert api.message("POST", "/floating_ips", body) == "invalid input in fields 'server', 'home_location'"


def test_an_address_is_routed_to_its_server(lab: Lab) -> None:
    web, far = lab.server("web")["id"], lab.server("far", location="hel1")["id"]
    ip = create(lab.api, server=web, home_location=None)
    path, address = f"/floating_ips/{ip['id']}", (ip["ip"],)
    assert (ip["server"], ip["home_location"]["name"]) == (web, "fsn1")
    assert routed(lab) == {web: address}
    assert lab.api.get(f"/servers/{web}")["server"]["public_net"]["floating_ips"] == [ip["id"]]

    assert lab.api.code("POST", f"{path}/actions/assign", {"server": web}) == "floating_ip_assigned"
    lab.api.post(f"{path}/actions/assign", {"server": far})
    assert routed(lab) == {far: address}, "moved, to another location too"
    lab.api.post(f"{path}/actions/unassign")
    assert routed(lab) == {}
    assert lab.api.code("POST", f"{path}/actions/unassign") == "invalid_input"


def test_a_deleted_server_leaves_its_address(lab: Lab) -> None:
    web, other = lab.server("web")["id"], lab.server("other")["id"]
    ip = create(lab.api, server=web)
    assert lab.api.code("DELETE", f"/floating_ips/{ip['id']}") == "must_be_unassigned"
    lab.api.delete(f"/servers/{web}")
    assert lab.api.get(f"/floating_ips/{ip['id']}")["floating_ip"]["server"] is None
    lab.wait_idle()
    lab.api.post(f"/floating_ips/{ip['id']}/actions/assign", {"server": other})
    assert routed(lab) == {other: (ip["ip"],)}


def test_a_server_without_public_interface_is_refused(lab: Lab) -> None:
    network = lab.network()["id"]
    server = lab.off(networks=[network], public_net={"enable_ipv4": False, "enable_ipv6": False})["id"]
    ip = create(lab.api)["id"]
    message = lab.api.message("POST", f"/floating_ips/{ip}/actions/assign", {"server": server})
    assert message == "invalid input in field 'server': web-1 has no public network interface"


def test_a_failed_assignment_is_undone(lab: Lab) -> None:
    web, other = lab.server("web")["id"], lab.server("other")["id"]
    ip = create(lab.api, server=web)
    lab.wait_idle()
    lab.machines.fail["route_floating_ips"] = "the link is broken"
    action = lab.api.post(f"/floating_ips/{ip['id']}/actions/assign", {"server": other})["action"]
    lab.wait_idle()
    assert lab.api.get(f"/actions/{action['id']}")["action"]["error"]["message"] == "the link is broken"
    assert lab.api.get(f"/floating_ips/{ip['id']}")["floating_ip"]["server"] == web
    lab.machines.fail.clear()


def test_reverse_names(lab: Lab) -> None:
    v4, v6 = create(lab.api), create(lab.api, name="v6", type="ipv6")
    default = f"static.{'.'.join(reversed(v4['ip'].split('.')))}.clients.your-server.de"
    assert (v4["dns_ptr"], v6["dns_ptr"]) == ([{"ip": v4["ip"], "dns_ptr": default}], [])
    host = v6["ip"].replace("/64", "1")

    def change(ip: dict[str, Any], address: str, name: str | None) -> list[dict[str, str]]:
        path = f"/floating_ips/{ip['id']}"
        lab.api.post(f"{path}/actions/change_dns_ptr", {"ip": address, "dns_ptr": name})
        names: list[dict[str, str]] = lab.api.get(path)["floating_ip"]["dns_ptr"]
        return names

    assert change(v4, v4["ip"], "mail.example.com") == [{"ip": v4["ip"], "dns_ptr": "mail.example.com"}]
    assert lab.cloud.address_of("mail.example.com") == v4["ip"]
    assert change(v4, v4["ip"], None) == [{"ip": v4["ip"], "dns_ptr": default}]
    assert change(v6, host, "v6.example.com") == [{"ip": host, "dns_ptr": "v6.example.com"}]
    assert change(v6, host, None) == []
    body = {"ip": v4["ip"], "dns_ptr": "bad host name!"}
    assert lab.api.code("POST", f"/floating_ips/{v4['id']}/actions/change_dns_ptr", body) == "invalid_input"


def test_protection_names_and_labels(api: Api) -> None:
    ip = create(api, labels={"a": "b"})
    path = f"/floating_ips/{ip['id']}"
    assert api.code("POST", "/floating_ips", {"name": "floating", "type": "ipv4", "home_location": 1}) == (
        "uniqueness_error"
    )
    changed = api.put(path, {"name": "web", "description": "front", "labels": {"c": "d"}})["floating_ip"]
    assert (changed["name"], changed["description"], changed["labels"]) == ("web", "front", {"c": "d"})
    assert api.put(path, {})["floating_ip"] == changed
    assert [row["id"] for row in api.get("/floating_ips", name="web", label_selector="c=d")["floating_ips"]] == [
        ip["id"]
    ]
    api.post(f"{path}/actions/change_protection", {"delete": True})
    status, payload = api("DELETE", path)
    assert (status, payload["error"]["message"]) == (423, "Floating IP deletion is protected")
    api.post(f"{path}/actions/change_protection", {"delete": False})
    api.delete(path)
