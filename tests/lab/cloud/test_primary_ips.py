from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network
from typing import Any

import pytest

from tests.lab.cloud.conftest import Api, Lab


def create(api: Api, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/primary_ips", {"name": "ip", "type": "ipv4", "location": "fsn1"} | more)
    return made["primary_ip"]  # type: ignore[no-any-return]


def test_addresses_are_in_the_ranges_of_the_lab(lab: Lab) -> None:
    settings = lab.cloud.settings
    ips = [create(lab.api, name=f"ip{number}")["ip"] for number in range(3)]
    assert all(IPv4Address(ip) in settings.public_range for ip in ips)
    assert settings.public_range[0] not in {IPv4Address(ip) for ip in ips}
    networks = [create(lab.api, name=f"v6-{number}", type="ipv6")["ip"] for number in range(3)]
    assert all(IPv6Network(network).subnet_of(settings.public_range_v6) for network in networks)
    assert len({*ips, *networks}) == 6 and all(network.endswith("::/64") for network in networks)


def test_addresses_are_found_with_and_without_the_prefix_length(api: Api) -> None:
    v4, v6 = create(api, name="v4"), create(api, name="v6", type="ipv6")
    network = v6["ip"].removesuffix("/64")
    for text, ids in (
        (v4["ip"], [v4["id"]]),
        (network, [v6["id"]]),
        (v6["ip"], [v6["id"]]),
        (network.upper().replace("::", ":0:0:0:0"), [v6["id"]]),
        (f"{network}1", []),
        ("web", []),
        ("", [v4["id"], v6["id"]]),
    ):
        assert [row["id"] for row in api.get("/primary_ips", ip=text)["primary_ips"]] == ids, text


def test_a_released_address_is_not_reused_at_once(lab: Lab) -> None:
    first, second = create(lab.api, name="a"), create(lab.api, name="b")
    lab.api.delete(f"/primary_ips/{first['id']}")
    third = create(lab.api, name="c")
    assert third["ip"] not in (first["ip"], second["ip"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"location": 1}, None),
        ({"auto_delete": True}, None),
        ({"assignee_type": "server"}, None),
        ({"type": "ipv5"}, "invalid_input"),
        ({"location": None}, "invalid_input"),
        ({"location": "moon"}, "not_found"),
        ({"name": ""}, "invalid_input"),
        ({"assignee_id": 1}, "not_found"),
        ({"datacenter": "fsn1-dc14"}, "unsupported_error"),
    ],
)
def test_creating(api: Api, change: dict[str, Any], code: str | None) -> None:
    status, payload = api("POST", "/primary_ips", {"name": "ip", "type": "ipv4", "location": "fsn1"} | change)
    assert status == 201 if code is None else payload["error"]["code"] == code
    assert len(api.get("/primary_ips")["primary_ips"]) == (code is None)


def test_addresses_of_a_server_are_created_and_deleted_with_it(lab: Lab) -> None:
    server = lab.server()
    rows = lab.api.get("/primary_ips")["primary_ips"]
    assert [(row["type"], row["auto_delete"], row["assignee_type"], row["assignee_id"]) for row in rows] == [
        ("ipv4", True, "server", server["id"]), ("ipv6", True, "server", server["id"])
    ]  # fmt: skip
    assert all(row["name"] == f"primary_ip-{row['id']}" for row in rows)
    assert lab.api.get("/primary_ips", ip=rows[0]["ip"])["primary_ips"] == rows[:1]
    assert lab.api.code("DELETE", f"/primary_ips/{rows[0]['id']}") == "must_be_unassigned"
    kept = lab.api.put(f"/primary_ips/{rows[0]['id']}", {"auto_delete": False})["primary_ip"]["id"]
    lab.api.delete(f"/servers/{server['id']}")
    [left] = lab.api.get("/primary_ips")["primary_ips"]
    assert (left["id"], left["assignee_id"], left["assignee_type"]) == (kept, None, "unassigned")


def test_assigning(lab: Lab) -> None:
    api, server, other = lab.api, lab.off(), lab.off("web-2")
    ip, far = create(api), create(api, name="far", location="hel1")
    v4, v6 = (server["public_net"][kind]["id"] for kind in ("ipv4", "ipv6"))
    assign = {"assignee_id": server["id"], "assignee_type": "server"}
    assert api.code("POST", f"/primary_ips/{ip['id']}/actions/assign", assign) == "server_has_ipv4"
    more = create(api, name="v6", type="ipv6")
    assert api.code("POST", f"/primary_ips/{more['id']}/actions/assign", assign) == "server_has_ipv6"
    api.post(f"/primary_ips/{v4}/actions/unassign")
    assert api.code("POST", f"/primary_ips/{v4}/actions/unassign") == "invalid_input"
    assert api.code("POST", f"/primary_ips/{far['id']}/actions/assign", assign) == "primary_ip_datacenter_mismatch"
    api.post(f"/primary_ips/{ip['id']}/actions/assign", assign)
    body = {"assignee_id": other["id"], "assignee_type": "server"}
    assert api.code("POST", f"/primary_ips/{ip['id']}/actions/assign", body) == "primary_ip_already_assigned"
    assert lab.machines.hosts[server["id"]].ipv4 == ip["ip"]
    api.post(f"/servers/{server['id']}/actions/poweron")
    assert api.code("POST", f"/primary_ips/{ip['id']}/actions/unassign") == "server_not_stopped"
    assert api.code("POST", f"/primary_ips/{v6}/actions/unassign") == "server_not_stopped"


def test_created_for_a_server(lab: Lab) -> None:
    server = lab.off(public_net={"enable_ipv4": False})
    made = lab.api.post("/primary_ips", {"name": "ip", "type": "ipv4", "assignee_id": server["id"]})
    assert made["action"]["command"] == "assign_primary_ip"
    assert made["primary_ip"]["assignee_id"] == server["id"]
    assert lab.api.get(f"/servers/{server['id']}")["server"]["public_net"]["ipv4"]["ip"] == made["primary_ip"]["ip"]


def test_a_server_with_existing_addresses(lab: Lab) -> None:
    ip = create(lab.api, location="hel1")
    body = {"name": "web", "server_type": "cx23", "image": "debian-13"}
    made = lab.api.post("/servers", body | {"public_net": {"ipv4": ip["id"], "enable_ipv6": False}})["server"]
    assert (made["public_net"]["ipv4"]["ip"], made["public_net"]["ipv6"]) == (ip["ip"], None)
    assert made["location"]["name"] == "hel1"
    lab.wait_idle()
    free = create(lab.api, name="free")
    for public, code in (
        ({"ipv4": ip["id"]}, "primary_ip_assigned"),
        ({"ipv6": free["id"]}, "primary_ip_version_mismatch"),
        ({"ipv4": free["id"], "enable_ipv4": False}, "invalid_input"),
        ({"ipv4": 1}, "not_found"),
    ):
        assert lab.api.code("POST", "/servers", body | {"name": "web-2", "public_net": public}) == code, public
    far = body | {"name": "web-2", "location": "nbg1", "public_net": {"ipv4": free["id"]}}
    assert lab.api.code("POST", "/servers", far) == "primary_ip_datacenter_mismatch"


def test_reverse_names(lab: Lab) -> None:
    server = lab.server()
    v4, v6 = server["public_net"]["ipv4"], server["public_net"]["ipv6"]
    default = f"static.{'.'.join(reversed(v4['ip'].split('.')))}.clients.your-server.de"
    assert (v4["dns_ptr"], v6["dns_ptr"]) == (default, [])
    host = v6["ip"].replace("/64", "1")

    def names(path: str, ip: str, name: str | None) -> tuple[str, list[dict[str, str]]]:
        lab.api.post(f"{path}/actions/change_dns_ptr", {"ip": ip, "dns_ptr": name})
        public = lab.api.get(f"/servers/{server['id']}")["server"]["public_net"]
        return public["ipv4"]["dns_ptr"], public["ipv6"]["dns_ptr"]

    by_server, by_ip = f"/servers/{server['id']}", f"/primary_ips/{v6['id']}"
    assert names(by_server, v4["ip"], "Web.example.com")[0] == "Web.example.com"
    # The resolver of the lab returns the address of this name.
    assert (lab.cloud.address_of("web.example.com"), lab.cloud.address_of("db.example.com")) == (v4["ip"], None)
    assert names(f"/primary_ips/{v4['id']}", v4["ip"], None)[0] == default
    assert names(by_ip, host, "v6.example.com")[1] == [{"ip": host, "dns_ptr": "v6.example.com"}]
    assert names(by_server, host, None)[1] == []
    for name in ("bad host name!", "a b", "-a.example.com", "a..example.com", "x" * 64, "a." * 127 + "com"):
        for path, ip in ((by_server, v4["ip"]), (f"/primary_ips/{v4['id']}", v4["ip"]), (by_ip, host)):
            body = {"ip": ip, "dns_ptr": name}
            assert lab.api.code("POST", f"{path}/actions/change_dns_ptr", body) == "invalid_input", name
    for ip in ("192.0.2.1", "x"):
        assert (
            lab.api.code("POST", f"{by_server}/actions/change_dns_ptr", {"ip": ip, "dns_ptr": "a"}) == "invalid_input"
        )


def test_protection_and_auto_delete_exclude_each_other(api: Api) -> None:
    ip = create(api, auto_delete=True)["id"]
    path = f"/primary_ips/{ip}"
    assert api.code("POST", f"{path}/actions/change_protection", {"delete": True}) == "invalid_input"
    api.put(path, {"auto_delete": False})
    api.post(f"{path}/actions/change_protection", {"delete": True})
    status, payload = api("DELETE", path)
    assert (status, payload["error"]["message"]) == (423, "Primary IP deletion is protected")
