"""The admin API: faults, status, console, reset."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.machines.base import Fault
from tests.lab.cloud.conftest import Lab
from tests.support.deadlines import until

BODY = {"name": "web-1", "server_type": "cx23", "image": "debian-13", "location": "fsn1"}


def admin(lab: Lab, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    return lab.api(method, f"{lab.url}/_lab{path}", body)


def inject(lab: Lab, **fault: Any) -> Any:
    status, payload = admin(lab, "POST", "/faults", fault)
    assert status in (201, 204), payload
    return payload


def available(lab: Lab, name: str) -> list[str]:
    [row] = lab.api.get("/server_types", name=name)["server_types"]
    return [entry["name"] for entry in row["locations"] if entry["available"]]


def test_out_of_stock_fails_the_creation_only(lab: Lab) -> None:
    inject(lab, kind="out_of_stock", server_type="cx23", location="fsn1")
    status, payload = lab.api("POST", "/servers", BODY)
    assert (status, payload["error"]["code"]) == (412, "resource_unavailable")
    assert payload["error"]["message"] == (
        "we are unable to provision servers for this location, try with a different location or try later"
    )
    assert available(lab, "cx23") == ["fsn1", "nbg1", "hel1"]
    assert lab.api("POST", "/servers", BODY | {"server_type": "cx33"})[0] == 201
    assert lab.api("POST", "/servers", BODY | {"name": "web-2", "location": "hel1"})[0] == 201
    # Without a location the cloud chooses one with stock.
    assert lab.api.post("/servers", BODY | {"name": "web-3", "location": None})["server"]["location"]["name"] == "nbg1"


def test_out_of_stock_in_the_catalogue(lab: Lab) -> None:
    inject(lab, kind="out_of_stock", server_type="cx23", location="fsn1", announced=True)
    assert available(lab, "cx23") == ["nbg1", "hel1"]
    assert available(lab, "cx33") == ["fsn1", "nbg1", "hel1"]


def test_out_of_stock_fails_a_change_of_type(lab: Lab) -> None:
    server = lab.off()["id"]
    inject(lab, kind="out_of_stock", server_type="cx33")
    body = {"server_type": "cx33", "upgrade_disk": False}
    assert lab.api.code("POST", f"/servers/{server}/actions/change_type", body) == "resource_unavailable"
    assert lab.api.get(f"/servers/{server}")["server"]["server_type"]["name"] == "cx23"


@pytest.mark.parametrize(
    ("fault", "method", "path", "status", "code"),
    [
        ({"kind": "rate_limit"}, "GET", "/servers", 429, "rate_limit_exceeded"),
        ({"kind": "rate_limit"}, "POST", "/ssh_keys", 429, "rate_limit_exceeded"),
        ({"kind": "locked"}, "POST", "/networks", 423, "locked"),
        ({"kind": "locked"}, "DELETE", "/networks/1", 423, "locked"),
        ({"kind": "locked"}, "GET", "/networks", 200, None),
        ({"kind": "error"}, "GET", "/servers", 503, "unavailable"),
        ({"kind": "error", "status": 500}, "GET", "/servers", 500, "server_error"),
        ({"kind": "error", "status": 502}, "GET", "/servers", 502, "bad_gateway"),
        ({"kind": "error", "status": 504}, "GET", "/servers", 504, "timeout"),
        ({"kind": "error", "method": "POST"}, "GET", "/servers", 200, None),
        ({"kind": "error", "path": "/v1/servers"}, "GET", "/servers/1", 503, "unavailable"),
        ({"kind": "error", "path": "/v1/servers"}, "GET", "/networks", 200, None),
    ],
)
def test_faults_of_requests(lab: Lab, fault: Any, method: str, path: str, status: int, code: str | None) -> None:
    inject(lab, **fault, count=1)
    got, payload = lab.api(method, path)
    assert got == status
    if code:
        assert payload["error"]["code"] == code
        assert lab.api("GET", "/servers")[0] == 200, "the count was one"


def test_an_injected_rate_limit_leaves_no_requests(lab: Lab) -> None:
    inject(lab, kind="rate_limit", count=1)
    headers = lab.api.http.get("/servers").headers
    assert headers["ratelimit-remaining"] == "0"
    assert int(headers["ratelimit-reset"]) > time.time() + 3500
    assert int(lab.api.http.get("/servers").headers["ratelimit-remaining"]) > 0


def test_the_sdk_retries_after_a_rate_limit(lab: Lab) -> None:
    inject(lab, kind="rate_limit", count=1)
    assert lab.client.servers.get_all() == []


def test_slow_responses(lab: Lab) -> None:
    inject(lab, kind="slow", seconds=0.4, path="/v1/servers", count=1)
    lab.api.get("/networks")
    assert len(admin(lab, "GET", "/faults")[1]["faults"]) == 1, "another path is not slow"
    start = time.monotonic()
    lab.api.get("/servers")
    assert time.monotonic() - start >= 0.4
    assert admin(lab, "GET", "/faults")[1]["faults"] == []


def test_an_injected_action_error(lab: Lab) -> None:
    server = lab.off()["id"]
    inject(lab, kind="action_error", command="start_server", seconds=0, count=1)
    action = lab.api.post(f"/servers/{server}/actions/poweron")["action"]
    assert action["error"]["message"] == "injected fault: start_server failed"
    assert lab.machines.on == set()
    assert lab.api.post(f"/servers/{server}/actions/poweron")["action"]["status"] == "success"


def test_faults_are_listed_counted_and_removed(lab: Lab) -> None:
    first = inject(lab, kind="rate_limit", path="/v1/pricing", count=2)["fault"]
    second = inject(lab, kind="error", path="/v1/pricing")["fault"]
    assert first == {"id": first["id"], "kind": "rate_limit", "path": "/v1/pricing", "left": 2}
    assert lab.api.code("GET", "/pricing") == "rate_limit_exceeded"
    assert [(row["id"], row["left"]) for row in admin(lab, "GET", "/faults")[1]["faults"]] == [
        (first["id"], 1), (second["id"], None)
    ]  # fmt: skip
    assert admin(lab, "DELETE", f"/faults/{first['id']}")[0] == 204
    assert admin(lab, "DELETE", f"/faults/{first['id']}")[0] == 404
    assert lab.api.code("GET", "/pricing") == "unavailable"
    assert admin(lab, "DELETE", "/faults")[1] == {"faults": []}
    lab.api.get("/pricing")


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "earthquake"},
        {},
        {"kind": "out_of_stock", "server_type": "cx99"},
        {"kind": "out_of_stock", "location": "moon"},
        {"kind": "error", "status": 404},
        {"kind": "rate_limit", "count": 0},
        {"kind": "power_cut"},
        {"kind": "power_cut", "server": "nobody"},
        {"kind": "network_cut", "server": "web-1", "link": "nothing"},
        {"kind": "loss", "server": "web-1", "percent": 101},
    ],
)
def test_invalid_faults(lab: Lab, fault: dict[str, Any]) -> None:
    lab.server("web-1")
    status, payload = admin(lab, "POST", "/faults", fault)
    assert status in (404, 422) and payload["error"]["message"]
    assert admin(lab, "GET", "/faults")[1]["faults"] == []


def test_faults_of_links(lab: Lab) -> None:
    network = lab.network("net")["id"]
    server = lab.server("web-1", networks=[network])["id"]
    inject(lab, kind="network_cut", server="web-1")
    inject(lab, kind="delay", server="web-1", link="net", milliseconds=40)
    inject(lab, kind="loss", server="web-1", link="net", percent=30)
    assert lab.machines.faults() == [
        Fault(server, None, cut=True), Fault(server, network, delay_ms=40, loss_percent=30)
    ]  # fmt: skip
    rows = admin(lab, "GET", "/faults")[1]["faults"]
    assert [(row["server"], row["link"], row["cut"], row["delay_ms"], row["loss_percent"]) for row in rows] == [
        ("web-1", "public", True, 0, 0), ("web-1", "net", False, 40, 30)
    ]  # fmt: skip
    inject(lab, kind="network_heal", server="web-1")
    assert lab.machines.faults() == [Fault(server, network, delay_ms=40, loss_percent=30)]
    inject(lab, kind="network_cut", server="web-1", link="all")
    assert [(fault.network_id, fault.cut) for fault in lab.machines.faults()] == [(network, True), (None, True)]
    admin(lab, "DELETE", "/faults")
    assert lab.machines.faults() == []


def test_a_full_disk(lab: Lab) -> None:
    server = lab.server("web-1")["id"]
    inject(lab, kind="disk_full", server="web-1", free_mb=20)
    assert lab.machines.filled_disks() == {server: 20}
    assert admin(lab, "GET", "/faults")[1]["faults"] == [{"kind": "disk_full", "server": "web-1", "free_mb": "20"}]
    inject(lab, kind="disk_room", server="web-1")
    assert lab.machines.filled_disks() == {}
    inject(lab, kind="disk_full", server="web-1")
    admin(lab, "DELETE", "/faults")
    assert lab.machines.filled_disks() == {}


def test_a_power_cut_and_its_end(lab: Lab) -> None:
    server = lab.server("web-1")["id"]
    inject(lab, kind="power_cut", server="web-1")
    lab.wait_idle()
    assert (lab.machines.on, lab.api.get(f"/servers/{server}")["server"]["status"]) == (set(), "off")
    lab.api.post(f"/servers/{server}/actions/poweron")
    lab.machines.calls.clear()
    inject(lab, kind="power_cut", server="web-1", seconds=0.3)
    expected = [("power_off", server), ("power_on", server)]
    until(lambda: list(lab.machines.calls), 60, lambda calls: calls == expected, pause=0.01)
    lab.wait_idle()
    assert lab.api.get(f"/servers/{server}")["server"]["status"] == "running"


def test_status(lab: Lab) -> None:
    network = lab.network("net")["id"]
    lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})
    volume = lab.api.get("/volumes")["volumes"][0]["id"]
    made = lab.server("web-1", networks=[network], volumes=[volume], labels={"a": "b"})
    seen = admin(lab, "GET", "/status")[1]
    assert seen["servers"] == [
        {
            "id": made["id"],
            "name": "web-1",
            "status": "running",
            "type": "cx23",
            "image": "debian-13",
            "location": "fsn1",
            "public": {"ipv4": made["public_net"]["ipv4"]["ip"], "ipv6": made["public_net"]["ipv6"]["ip"]},
            "private": {"net": "10.0.1.1"},
            "volumes": ["disk"],
            "labels": {"a": "b"},
            "busy": False,
        }
    ]
    assert seen["networks"][0]["members"] == 1
    assert (seen["name"], seen["reconciling"], seen["faults"]) == ("test", False, [])
    assert seen["counts"]["server"] == 1 and seen["counts"]["job"] == 0
    assert seen["memory_mb"] > 1


def test_console(lab: Lab) -> None:
    lab.server("web-1")
    assert admin(lab, "GET", "/servers/web-1/console") == (200, {"console": "web-1 login: \n"})
    assert admin(lab, "GET", "/servers/nobody/console")[0] == 404


def test_reset_deletes_everything_except_the_sequence_of_ids(lab: Lab) -> None:
    network = lab.network()["id"]
    last = lab.server(networks=[network])["id"]
    inject(lab, kind="error", path="/v1/servers")
    assert admin(lab, "POST", "/reset")[0] == 200
    lab.wait_idle()
    assert lab.machines.hosts == {} and lab.machines.networks == {}
    for path in ("servers", "networks", "primary_ips"):
        assert lab.api.get(f"/{path}")[path] == []
    assert lab.server()["id"] > last


def test_faults_do_not_affect_the_admin_api(lab: Lab) -> None:
    inject(lab, kind="error")
    assert lab.api("GET", "/servers")[0] == 503
    assert admin(lab, "GET", "/status")[0] == 200
