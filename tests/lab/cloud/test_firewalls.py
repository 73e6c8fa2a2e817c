from __future__ import annotations

from typing import Any

import pytest

from lab.machines.base import FirewallRule
from tests.lab.cloud.conftest import Api, Lab

SSH = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["0.0.0.0/0", "::/0"]}
PING = {"direction": "in", "protocol": "icmp", "source_ips": ["192.0.2.0/24"], "description": ""}
DNS = {"direction": "out", "protocol": "udp", "port": "53", "destination_ips": ["192.0.2.1/32"], "description": "dns"}


def on(id: int) -> dict[str, Any]:
    return {"type": "server", "server": {"id": id}}


def matching(selector: str) -> dict[str, Any]:
    return {"type": "label_selector", "label_selector": {"selector": selector}}


def create(api: Api, name: str = "wall", **more: Any) -> int:
    id: int = api.post("/firewalls", {"name": name} | more)["firewall"]["id"]
    return id


def test_rules_have_every_key_and_inbound_rules_come_first(lab: Lab) -> None:
    id = create(lab.api, rules=[DNS, SSH, PING])
    empty = {"port": None, "source_ips": [], "destination_ips": [], "description": None}
    assert lab.api.get(f"/firewalls/{id}")["firewall"]["rules"] == [empty | SSH, empty | PING, empty | DNS]
    lab.wait_idle()
    assert lab.machines.firewalls[id].rules == (
        FirewallRule("in", "tcp", "22", ("0.0.0.0/0", "::/0")),
        FirewallRule("in", "icmp", None, ("192.0.2.0/24",)),
        FirewallRule("out", "udp", "53", ("192.0.2.1/32",)),
    )
    lab.api.post(f"/firewalls/{id}/actions/set_rules", {"rules": [PING, DNS, SSH]})
    assert lab.api.get(f"/firewalls/{id}")["firewall"]["rules"] == [empty | PING, empty | SSH, empty | DNS]


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"port": "any"}, True),
        ({"port": "80-85"}, True),
        ({"port": "65535"}, True),
        ({"port": 22}, True),
        ({"protocol": "udp"}, True),
        ({"port": "0"}, False),
        ({"port": "65536"}, False),
        ({"port": "85-80"}, False),
        ({"port": "1-2-3"}, False),
        ({"port": "ssh"}, False),
        ({"port": None}, False),
        ({"protocol": "icmp"}, False),
        ({"protocol": "icmp", "port": None}, True),
        ({"protocol": "esp", "port": None}, True),
        ({"protocol": "gre", "port": None}, True),
        ({"protocol": "sctp"}, False),
        ({"direction": "out"}, False),
        ({"direction": "out", "destination_ips": ["::/0"]}, True),
        ({"direction": "up"}, False),
        ({"source_ips": []}, False),
        ({"source_ips": ["10.0.0.1/32"]}, True),
        ({"source_ips": ["10.0.0.1"]}, False),
        ({"source_ips": ["2001:db8::1"]}, False),
        ({"source_ips": ["10.0.0.1/8"]}, False),
        ({"source_ips": ["world"]}, False),
        ({"source_ips": ["10.0.0.0/24"] * 101}, False),
        ({"description": "x" * 255}, True),
        ({"description": "x" * 256}, False),
    ],
)
def test_rules(api: Api, change: dict[str, Any], good: bool) -> None:
    id = create(api)
    status, payload = api("POST", f"/firewalls/{id}/actions/set_rules", {"rules": [SSH | change]})
    assert status == 201 if good else payload["error"]["code"] == "invalid_input"
    assert len(api.get(f"/firewalls/{id}")["firewall"]["rules"]) == good


def test_at_most_fifty_rules(api: Api) -> None:
    id = create(api, rules=[SSH] * 50)
    assert api.code("POST", f"/firewalls/{id}/actions/set_rules", {"rules": [SSH] * 51}) == "invalid_input"
    assert (
        api.post(f"/firewalls/{id}/actions/set_rules", {"rules": []})["actions"][0]["command"] == "set_firewall_rules"
    )


def test_applying_and_removing(lab: Lab) -> None:
    server, firewall = lab.server()["id"], create(lab.api, rules=[SSH])
    actions = f"/firewalls/{firewall}/actions"
    [action] = lab.api.post(f"{actions}/apply_to_resources", {"apply_to": [on(server)]})["actions"]
    assert {row["type"]: row["id"] for row in action["resources"]} == {"server": server, "firewall": firewall}
    assert lab.api.get(f"/servers/{server}")["server"]["public_net"]["firewalls"] == [
        {"id": firewall, "status": "applied"}
    ]
    assert lab.api.get(f"/firewalls/{firewall}")["firewall"]["applied_to"] == [on(server)]
    assert lab.machines.members[server] == (firewall,)
    assert (
        lab.api.code("POST", f"{actions}/apply_to_resources", {"apply_to": [on(server)]}) == "firewall_already_applied"
    )
    assert lab.api.code("POST", f"{actions}/apply_to_resources", {"apply_to": [on(1)]}) == "firewall_resource_not_found"
    status, payload = lab.api("DELETE", f"/firewalls/{firewall}")
    assert (status, payload["error"]["code"]) == (422, "resource_in_use")
    assert payload["error"]["message"] == f"firewall with ID {firewall} is still in use"
    lab.api.post(f"{actions}/remove_from_resources", {"remove_from": [on(server)]})
    assert lab.machines.members[server] == ()
    gone = {"remove_from": [on(server)]}
    assert lab.api.code("POST", f"{actions}/remove_from_resources", gone) == "firewall_resource_not_found"
    lab.api.delete(f"/firewalls/{firewall}")


def test_a_deleted_server_is_removed_from_its_firewalls(lab: Lab) -> None:
    firewall = create(lab.api)
    server = lab.server(firewalls=[{"firewall": firewall}])["id"]
    lab.api.delete(f"/servers/{server}")
    assert lab.api.get(f"/firewalls/{firewall}")["firewall"]["applied_to"] == []
    lab.api.delete(f"/firewalls/{firewall}")


def test_a_selector_follows_the_labels(lab: Lab) -> None:
    web, db = lab.server("web", labels={"role": "web"})["id"], lab.server("db", labels={"role": "db"})["id"]
    firewall = create(lab.api, apply_to=[matching("role in (web,proxy)")])
    lab.wait_idle()

    def filtered() -> list[int]:
        lab.wait_idle()
        [target] = lab.api.get(f"/firewalls/{firewall}")["firewall"]["applied_to"]
        shown = [row["server"]["id"] for row in target["applied_to_resources"]]
        assert shown == [id for id in (web, db) if lab.machines.members.get(id)]
        return shown

    assert filtered() == [web]
    lab.api.put(f"/servers/{db}", {"labels": {"role": "proxy"}})
    assert filtered() == [web, db]
    lab.api.put(f"/servers/{web}", {"labels": {}})
    assert filtered() == [db]
    late = lab.server("late", labels={"role": "web"})["id"]
    assert lab.machines.members[late] == (firewall,)
    lab.api.delete(f"/servers/{late}")
    body = {"remove_from": [on(db)]}
    actions = f"/firewalls/{firewall}/actions"
    assert lab.api.code("POST", f"{actions}/remove_from_resources", body) == "firewall_managed_by_label_selector"
    assert lab.api.code("POST", f"{actions}/apply_to_resources", {"apply_to": [matching("role in (web,proxy)")]}) == (
        "firewall_already_applied"
    )
    assert lab.api.code("DELETE", f"/firewalls/{firewall}") == "resource_in_use"
    lab.api.post(f"{actions}/remove_from_resources", {"remove_from": [matching("role in (web,proxy)")]})
    assert lab.machines.members[db] == ()
    lab.api.delete(f"/firewalls/{firewall}")


@pytest.mark.parametrize(
    "target",
    [
        {"type": "server"},
        {"type": "label_selector", "server": {"id": 1}},
        {"type": "load_balancer"},
        {"type": "label_selector", "label_selector": {"selector": "a=b=c"}},
        {"type": "label_selector", "label_selector": {"selector": ""}},
    ],
)
def test_invalid_targets(api: Api, target: dict[str, Any]) -> None:
    assert (
        api.code("POST", f"/firewalls/{create(api)}/actions/apply_to_resources", {"apply_to": [target]})
        == "invalid_input"
    )


def test_ipv6_is_stored_in_canonical_form(api: Api) -> None:
    id = create(api)
    api.post(f"/firewalls/{id}/actions/set_rules", {"rules": [SSH | {"source_ips": ["2001:0DB8:0::/32"]}]})
    assert api.get(f"/firewalls/{id}")["firewall"]["rules"][0]["source_ips"] == ["2001:db8::/32"]


def test_a_server_is_applied_only_once(lab: Lab) -> None:
    server = lab.server()["id"]
    body = {"name": "wall", "apply_to": [on(server), on(server)]}
    assert lab.api.code("POST", "/firewalls", body) == "server_already_added"
    assert lab.api.get("/firewalls")["firewalls"] == []


def test_at_most_five_firewalls_per_server(lab: Lab) -> None:
    server = lab.server()["id"]
    for number in range(5):
        create(lab.api, f"wall{number}", apply_to=[on(server)])
    assert lab.api.code("POST", "/firewalls", {"name": "wall5", "apply_to": [on(server)]}) == "resource_limit_exceeded"


def test_a_server_without_public_address_has_no_firewalls(lab: Lab) -> None:
    network = lab.network()["id"]
    server = lab.server(networks=[network], public_net={"enable_ipv4": False, "enable_ipv6": False}, labels={"a": "b"})
    firewall = create(lab.api, apply_to=[matching("a=b")])
    actions = f"/firewalls/{firewall}/actions"
    assert (
        lab.api.code("POST", f"{actions}/apply_to_resources", {"apply_to": [on(server["id"])]})
        == "private_net_only_server"
    )
    assert lab.api.get(f"/servers/{server['id']}")["server"]["public_net"]["firewalls"] == []
