from __future__ import annotations

from typing import Any

import pytest

from lab.machines.base import ExitReason
from tests.lab.cloud.conftest import Lab

BODY = {"name": "web-1", "server_type": "cx23", "image": "debian-13", "location": "fsn1"}


def shown(lab: Lab, id: int) -> dict[str, Any]:
    lab.wait_idle()
    server: dict[str, Any] = lab.api.get(f"/servers/{id}")["server"]
    return server


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("web-1", True),
        ("web.example.com", True),
        ("1", True),
        ("A" * 63, True),
        ("a" * 64, False),
        ("web_1", False),
        ("-web", False),
        ("web-", False),
        ("web..x", False),
        ("we b", False),
        ("", False),
        ("web\n", False),
    ],
)
def test_names_are_host_names(lab: Lab, name: str, good: bool) -> None:
    status, _ = lab.api("POST", "/servers", BODY | {"name": name})
    assert status == (201 if good else 422)


def test_names_are_unique(lab: Lab) -> None:
    lab.server("web-1")
    other = lab.server("web-2")["id"]
    for method, path, body in (("POST", "/servers", BODY), ("PUT", f"/servers/{other}", {"name": "web-1"})):
        status, payload = lab.api(method, path, body)
        assert (status, payload["error"]["code"]) == (409, "uniqueness_error")
        assert payload["error"]["message"] == "server name is already used"


def test_response_of_a_creation(lab: Lab) -> None:
    made = lab.api.post("/servers", BODY)
    assert (made["server"]["status"], made["action"]["command"]) == ("initializing", "create_server")
    assert made["action"]["resources"] == [{"id": made["server"]["id"], "type": "server"}]
    assert [action["command"] for action in made["next_actions"]] == ["start_server"]
    assert made["server"]["public_net"]["ipv4"]["ip"] and made["root_password"]
    assert lab.machines.hosts[made["server"]["id"]].name == "web-1"


@pytest.mark.parametrize(("ids", "named"), [(True, False), (False, True)])
def test_keys_by_id_or_name_and_no_password_with_them(lab: Lab, public_keys: list[str], ids: bool, named: bool) -> None:
    rows = [
        lab.api.post("/ssh_keys", {"name": f"k{n}", "public_key": key})["ssh_key"] for n, key in enumerate(public_keys)
    ]
    made = lab.api.post("/servers", BODY | {"ssh_keys": [row["id" if ids else "name"] for row in rows]})
    assert made["root_password"] is None
    lab.wait_idle()
    assert lab.machines.hosts[made["server"]["id"]].ssh_keys == tuple(public_keys)


def test_an_unknown_key_is_not_found(lab: Lab) -> None:
    assert lab.api.code("POST", "/servers", BODY | {"ssh_keys": ["nobody"]}) == "not_found"


@pytest.mark.parametrize(("size", "good"), [(32 * 1024, True), (32 * 1024 + 1, False)])
def test_user_data_has_a_maximum_size(lab: Lab, size: int, good: bool) -> None:
    status, _ = lab.api("POST", "/servers", BODY | {"user_data": "x" * size})
    assert (status == 201) is good
    lab.wait_idle()
    assert [len(host.user_data) for host in lab.machines.hosts.values()] == ([size] if good else [])


def test_a_server_needs_an_interface(lab: Lab) -> None:
    no_public_net = {"enable_ipv4": False, "enable_ipv6": False}
    status, payload = lab.api("POST", "/servers", BODY | {"public_net": no_public_net})
    message = "invalid input: server must be attached to at least one of: primary_ipv4, primary_ipv6, private_network"
    assert (status, payload["error"]["message"]) == (422, message)
    network = lab.network()["id"]
    server = lab.off(public_net=no_public_net, networks=[network])
    assert (server["public_net"]["ipv4"], server["public_net"]["ipv6"]) == (None, None)
    lab.api.post(f"/servers/{server['id']}/actions/detach_from_network", {"network": network})
    assert lab.api.message("POST", f"/servers/{server['id']}/actions/poweron") == message
    bare = lab.off("bare", public_net=no_public_net)
    assert (bare["status"], bare["private_net"]) == ("off", []), "only a started server needs an interface"
    assert lab.api.message("POST", f"/servers/{bare['id']}/actions/poweron") == message


def test_create_stopped_attach_with_an_address_then_start(lab: Lab) -> None:
    """The sequence in which the platform creates its servers."""
    network = lab.network()["id"]
    server = lab.off(public_net={"enable_ipv4": True, "enable_ipv6": False})["id"]
    assert lab.machines.on == set()
    lab.api.post(f"/servers/{server}/actions/attach_to_network", {"network": network, "ip": "10.0.1.11"})
    lab.api.post(f"/servers/{server}/actions/poweron")
    assert lab.machines.attachments[server, network].ip == "10.0.1.11"
    calls = [verb for verb, id in lab.machines.calls if id == server]
    assert calls == ["create_host", "attach", "power_on"]


def test_firewall_and_network_are_applied_before_the_first_boot(lab: Lab) -> None:
    network = lab.network()["id"]
    firewall = lab.api.post("/firewalls", {"name": "wall"})["firewall"]["id"]
    volume = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    server = lab.server(networks=[network], firewalls=[{"firewall": firewall}], volumes=[volume])["id"]
    calls = [verb for verb, id in lab.machines.calls if id == server]
    assert calls == ["create_host", "set_host_firewalls", "attach", "attach_volume", "power_on"]


@pytest.mark.parametrize(
    ("before", "verb", "after", "on"),
    [
        ("off", "poweron", "running", True),
        ("running", "poweron", "running", True),
        ("running", "poweroff", "off", False),
        ("off", "poweroff", "off", False),
        ("running", "shutdown", "off", False),
        ("off", "shutdown", "off", False),
        ("running", "reboot", "running", True),
        ("running", "reset", "running", True),
        ("off", "reset", "running", True),
    ],
)
def test_power(lab: Lab, before: str, verb: str, after: str, on: bool) -> None:
    server = (lab.server if before == "running" else lab.off)()["id"]
    action = lab.api.post(f"/servers/{server}/actions/{verb}")["action"]
    assert (action["status"], action["progress"], action["error"]) == ("success", 100, None)
    assert shown(lab, server)["status"] == after
    assert (server in lab.machines.on) is on


@pytest.mark.parametrize("verb", ["reboot", "reset_password"])
def test_actions_that_require_a_running_server(lab: Lab, verb: str) -> None:
    server = lab.off()["id"]
    assert lab.api.code("POST", f"/servers/{server}/actions/{verb}") == "unsupported_error"


@pytest.mark.parametrize(
    ("reason", "status"),
    [(ExitReason.REBOOT, "running"), (ExitReason.POWEROFF, "off"), (ExitReason.CRASH, "off")],
)
def test_a_host_that_stops_by_itself(lab: Lab, reason: ExitReason, status: str) -> None:
    server = lab.server()["id"]
    lab.machines.exit(server, reason)
    assert shown(lab, server)["status"] == status
    assert (server in lab.machines.on) is (status == "running")


def test_an_outdated_exit_is_ignored(lab: Lab) -> None:
    server = lab.server()["id"]
    lab.cloud.on_exit(server, ExitReason.CRASH)
    assert shown(lab, server)["status"] == "running"
    lab.cloud.on_exit(1, ExitReason.CRASH)
    lab.wait_idle()


def test_reset_password(lab: Lab) -> None:
    server = lab.server()["id"]
    password = lab.api.post(f"/servers/{server}/actions/reset_password")["root_password"]
    assert lab.machines.passwords == {server: password}


def test_rescue_is_for_one_boot(lab: Lab, public_key: str) -> None:
    key = lab.api.post("/ssh_keys", {"name": "key", "public_key": public_key})["ssh_key"]["id"]
    server = lab.server()["id"]
    actions = f"/servers/{server}/actions"
    password = lab.api.post(f"{actions}/enable_rescue", {"ssh_keys": [key]})["root_password"]
    assert shown(lab, server)["rescue_enabled"] is True
    lab.api.post(f"{actions}/reboot")
    lab.wait_idle()
    host = lab.machines.hosts[server]
    assert (host.rescue, host.rescue_ssh_keys, host.root_password) == (True, (public_key,), password)
    assert shown(lab, server)["rescue_enabled"] is False
    lab.api.post(f"{actions}/reset")
    assert lab.machines.hosts[server].rescue is False
    lab.api.post(f"{actions}/enable_rescue")
    lab.api.post(f"{actions}/disable_rescue")
    assert shown(lab, server)["rescue_enabled"] is False
    assert lab.api.code("POST", f"{actions}/enable_rescue", {"type": "freebsd64"}) == "invalid_input"


def test_rebuild_keeps_addresses_and_user_data(lab: Lab) -> None:
    before = lab.server(user_data="old")
    actions = f"/servers/{before['id']}/actions"
    lab.api.post(f"{actions}/rebuild", {"image": "debian-12"})
    after = shown(lab, before["id"])
    assert (after["image"]["name"], after["status"], after["public_net"]) == (
        "debian-12",
        "running",
        before["public_net"],
    )
    assert lab.machines.hosts[before["id"]].user_data == "old"
    lab.api.post(f"{actions}/rebuild", {"image": "debian-12", "user_data": "new"})
    lab.wait_idle()
    assert lab.machines.hosts[before["id"]].user_data == "new"
    assert lab.api.code("POST", f"{actions}/rebuild", {"image": "ubuntu-24.04"}) == "unsupported_error"
    assert lab.api.code("POST", f"{actions}/rebuild", {}) == "invalid_input"


@pytest.mark.parametrize(
    ("type", "upgrade", "result"),
    [
        ("cx33", False, (8, 40)),
        ("cx33", True, (8, 80)),
        ("cpx22", False, (4, 40)),
        (115, True, (8, 80)),
        ("cx23", False, "invalid_server_type"),
        ("cax21", False, "invalid_server_type"),
        ("cx22", False, "invalid_server_type"),
        ("cpx11", False, "invalid_server_type"),
        ("cx99", False, "not_found"),
        ("cx33", None, "invalid_input"),
    ],
)
def test_change_type(lab: Lab, type: object, upgrade: bool | None, result: Any) -> None:
    server = lab.off()["id"]
    body = {"server_type": type, "upgrade_disk": upgrade}
    status, payload = lab.api("POST", f"/servers/{server}/actions/change_type", body)
    if status == 201:
        assert shown(lab, server)["status"] == "running"
        host = lab.machines.hosts[server]
        assert (host.memory_gb, host.disk_gb) == result
        assert shown(lab, server)["primary_disk_size"] == result[1]
    else:
        assert payload["error"]["code"] == result


def test_a_grown_disk_never_shrinks(lab: Lab) -> None:
    server = lab.off()["id"]
    actions = f"/servers/{server}/actions"
    assert lab.api.post(f"{actions}/change_type", {"server_type": "cx33", "upgrade_disk": True})
    lab.wait_idle()
    small = {"server_type": "cx23", "upgrade_disk": False}
    assert lab.api.code("POST", f"{actions}/change_type", small) == "invalid_server_type"
    wide = {"server_type": "cx43", "upgrade_disk": False}
    assert lab.api.code("POST", f"{actions}/change_type", wide) == "server_not_stopped"


@pytest.mark.parametrize(
    ("flags", "good"),
    [
        ({"delete": True, "rebuild": True}, True),
        ({"delete": True}, False),
        ({"rebuild": True}, False),
        ({"delete": True, "rebuild": False}, False),
        ({"delete": False}, True),
        ({}, True),
    ],
)
def test_delete_and_rebuild_protection_must_be_equal(lab: Lab, flags: dict[str, bool], good: bool) -> None:
    server = lab.server()["id"]
    status, payload = lab.api("POST", f"/servers/{server}/actions/change_protection", flags)
    assert status == 201 if good else payload["error"]["code"] == "invalid_input"
    on = good and flags.get("delete", False)
    assert shown(lab, server)["protection"] == {"delete": on, "rebuild": on}


def test_a_protected_server_is_neither_deleted_nor_rebuilt(lab: Lab) -> None:
    server = lab.server()["id"]
    lab.api.post(f"/servers/{server}/actions/change_protection", {"delete": True, "rebuild": True})
    assert lab.api.code("DELETE", f"/servers/{server}") == "protected"
    assert lab.api.code("POST", f"/servers/{server}/actions/rebuild", {"image": "debian-13"}) == "protected"
    assert lab.machines.hosts[server].image == "debian-13"


def test_backup_is_a_flag(lab: Lab) -> None:
    server = lab.server()["id"]
    lab.api.post(f"/servers/{server}/actions/enable_backup")
    assert shown(lab, server)["backup_window"] == "22-02"
    lab.api.post(f"/servers/{server}/actions/disable_backup")
    assert shown(lab, server)["backup_window"] is None


@pytest.mark.parametrize("verb", ["attach_iso", "request_console"])
def test_unsupported_actions(lab: Lab, verb: str) -> None:
    server = lab.off()["id"]
    status, payload = lab.api("POST", f"/servers/{server}/actions/{verb}", {})
    assert (status, payload["error"]["code"]) == (501, "unsupported_error")
    assert len(payload["error"]["message"].split()) > 4
    assert lab.api("GET", f"/servers/{server}/metrics", type="cpu")[0] == 501


def test_a_deleted_server_is_not_found_and_its_action_succeeds(lab: Lab) -> None:
    server = lab.server()
    status, payload = lab.api("DELETE", f"/servers/{server['id']}")
    assert (status, payload["action"]["command"]) == (200, "delete_server")
    assert lab.api.code("GET", f"/servers/{server['id']}") == "not_found"
    assert lab.api.get(f"/actions/{payload['action']['id']}")["action"]["status"] == "success"
    assert lab.machines.hosts == {}


def test_ids_are_one_sequence_and_never_reused(lab: Lab) -> None:
    first = lab.server()["id"]
    lab.api.delete(f"/servers/{first}")
    lab.wait_idle()
    network, second = lab.network()["id"], lab.server()["id"]
    assert 100_000 <= first < network < second
