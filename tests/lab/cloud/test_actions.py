"""The engine: order, locks, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.cloud.actions import runnable
from lab.cloud.domain.objects import Job
from tests.lab.cloud.conftest import Lab, Serve
from tests.support.deadlines import until

BODY = {"name": "web-1", "server_type": "cx23", "image": "debian-13", "location": "fsn1"}


@contextmanager
def held(lab: Lab, verb: str) -> Iterator[threading.Event]:
    """One method of the machines blocks until the block ends; the event is set when it is called."""
    reached, release = threading.Event(), threading.Event()
    real = getattr(lab.machines, verb)

    def slow(*args: Any, **more: Any) -> Any:
        reached.set()
        assert release.wait(120)
        return real(*args, **more)

    setattr(lab.machines, verb, slow)
    try:
        yield reached
    finally:
        release.set()
        setattr(lab.machines, verb, real)


def test_a_slow_action_is_running_then_successful(lab: Lab) -> None:
    server = lab.off()["id"]
    with held(lab, "power_on"):
        action = lab.api.post(f"/servers/{server}/actions/poweron")["action"]
        assert (action["status"], action["progress"], action["finished"]) == ("running", 0, None)
        shown = lab.api.get(f"/servers/{server}")["server"]
        assert (shown["status"], shown["locked"]) == ("starting", True)
        actions = lab.api.get(f"/servers/{server}/actions", status="running")["actions"]
        assert [row["id"] for row in actions] == [action["id"]]
    lab.wait_idle()
    done = lab.api.get(f"/actions/{action['id']}")["action"]
    assert (done["status"], done["progress"]) == ("success", 100) and done["finished"] >= done["started"]
    shown = lab.api.get(f"/servers/{server}")["server"]
    assert (shown["status"], shown["locked"]) == ("running", False)


def test_a_request_for_a_running_action_waits_for_its_end(lab: Lab) -> None:
    server = lab.off()["id"]
    with held(lab, "power_on") as reached:
        action = lab.api.post(f"/servers/{server}/actions/poweron")["action"]["id"]
        assert reached.wait(60)
        statuses: list[str] = []
        request = threading.Thread(
            target=lambda: statuses.append(lab.client.actions.get_by_id(action).status), daemon=True
        )
        request.start()
        time.sleep(0.3)
        assert statuses == []
    request.join(60)
    assert statuses == ["success"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/servers/{server}/actions/poweroff", None),
        ("POST", "/servers/{server}/actions/poweron", None),
        ("POST", "/servers/{server}/actions/rebuild", {"image": "debian-13"}),
        ("POST", "/servers/{server}/actions/change_protection", {"delete": True, "rebuild": True}),
        ("POST", "/servers/{server}/actions/attach_to_network", {"network": 1}),
        ("POST", "/servers/{server}/actions/enable_rescue", {}),
        ("POST", "/volumes/{volume}/actions/attach", {"server": "{server}"}),
        ("DELETE", "/servers/{server}", None),
    ],
)
def test_a_busy_server_is_locked(lab: Lab, method: str, path: str, body: Any) -> None:
    server = lab.off()["id"]
    volume = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    lab.wait_idle()
    if body and body.get("server"):
        body = {"server": server}
    with held(lab, "power_on"):
        lab.api.post(f"/servers/{server}/actions/poweron")
        status, payload = lab.api(method, path.format(server=server, volume=volume), body)
        assert (status, payload["error"]["code"]) == (423, "locked")


def test_firewalls_change_under_a_busy_server(lab: Lab) -> None:
    server = lab.off()["id"]
    firewall = lab.api.post("/firewalls", {"name": "wall"})["firewall"]["id"]
    with held(lab, "power_on"):
        lab.api.post(f"/servers/{server}/actions/poweron")
        target = {"apply_to": [{"type": "server", "server": {"id": server}}]}
        [action] = lab.api.post(f"/firewalls/{firewall}/actions/apply_to_resources", target)["actions"]
        assert action["status"] == "running"
        [shown] = lab.api.get(f"/servers/{server}")["server"]["public_net"]["firewalls"]
        assert shown == {"id": firewall, "status": "pending"}
    lab.wait_idle()
    assert lab.machines.members[server] == (firewall,)


def test_a_busy_network_is_a_conflict(lab: Lab) -> None:
    network = lab.network()["id"]
    lab.wait_idle()
    server = lab.off()["id"]
    actions = f"/networks/{network}/actions"
    with held(lab, "apply_network"):
        lab.api.post(f"{actions}/add_route", {"destination": "10.9.0.0/16", "gateway": "10.0.1.2"})
        for path, body in (
            (f"{actions}/add_route", {"destination": "10.8.0.0/16", "gateway": "10.0.1.2"}),
            (f"{actions}/add_subnet", {"type": "cloud", "network_zone": "eu-central"}),
            (f"{actions}/change_protection", {"delete": True}),
            (f"/servers/{server}/actions/attach_to_network", {"network": network}),
        ):
            status, payload = lab.api("POST", path, body)
            assert (status, payload["error"]["code"]) == (409, "conflict"), path
        assert lab.api.code("DELETE", f"/networks/{network}") == "conflict"
        assert lab.api.code("PUT", f"/networks/{network}", {"name": "x"}) == "conflict"


def test_a_busy_firewall_is_a_conflict(lab: Lab) -> None:
    firewall = lab.api.post("/firewalls", {"name": "wall"})["firewall"]["id"]
    lab.wait_idle()
    with held(lab, "apply_firewall"):
        lab.api.post(f"/firewalls/{firewall}/actions/set_rules", {"rules": []})
        assert lab.api.code("POST", f"/firewalls/{firewall}/actions/set_rules", {"rules": []}) == "conflict"
        assert lab.api.code("PUT", f"/firewalls/{firewall}", {"name": "x"}) == "conflict"


def test_jobs_of_different_servers_run_in_parallel(lab: Lab) -> None:
    network = lab.network()["id"]
    with held(lab, "create_host") as reached:
        lab.api.post("/servers", BODY | {"name": "slow", "networks": [network]})
        assert reached.wait(60)
        del lab.machines.create_host  # the method of the class again, for later servers
        made = lab.api.post("/servers", BODY | {"name": "quick", "networks": [network]})
        path = f"/servers/{made['server']['id']}"
        until(lambda: lab.api.get(path)["server"]["status"], 60, lambda status: status == "running", pause=0.01)
        assert lab.api.get("/servers", name="slow")["servers"][0]["status"] == "initializing"


def test_an_address_is_reused_after_the_previous_host_is_deleted(lab: Lab) -> None:
    """A primary IP of a server that is being deleted: the next server with it is created after the deletion."""
    ip = lab.api.post("/primary_ips", {"name": "ip", "type": "ipv4", "location": "fsn1"})["primary_ip"]["id"]
    first = lab.server("first", public_net={"ipv4": ip})["id"]
    with held(lab, "delete_host") as reached:
        lab.api.delete(f"/servers/{first}")
        assert reached.wait(60)
        second = lab.api.post("/servers", BODY | {"name": "second", "public_net": {"ipv4": ip}})["server"]["id"]
        assert second not in lab.machines.hosts
    lab.wait_idle()
    assert set(lab.machines.hosts) == {second} and lab.machines.broken == []


# Failures


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("power_on", "poweron", None, "off"),
        ("power_on", "reset", None, "off"),
        ("rebuild", "rebuild", {"image": "debian-12"}, "off"),
        ("resize", "change_type", {"server_type": "cx33", "upgrade_disk": True}, "off"),
    ],
)
def test_an_error_of_the_machines_fails_the_action(lab: Lab, verb: str, path: str, body: Any, status: str) -> None:
    lab.expect_converged = verb != "rebuild"
    server = lab.off()["id"]
    lab.machines.fail[verb] = "the disk is on fire"
    action = lab.api.post(f"/servers/{server}/actions/{path}", body)["action"]
    assert (action["status"], action["error"]) == ("error", {"code": "action_failed", "message": "the disk is on fire"})
    shown = lab.api.get(f"/servers/{server}")["server"]
    assert (shown["status"], shown["locked"], shown["server_type"]["name"]) == (status, False, "cx23")
    assert shown["primary_disk_size"] == 40
    lab.machines.fail.clear()
    assert lab.api.post(f"/servers/{server}/actions/poweron")["action"]["status"] == "success"


def test_a_failed_creation_fails_the_following_actions(lab: Lab) -> None:
    lab.expect_converged = False
    network = lab.network()["id"]
    volume = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    lab.wait_idle()
    lab.machines.fail["create_host"] = "no room"
    made = lab.api.post("/servers", BODY | {"networks": [network], "volumes": [volume]})
    assert made["action"]["error"]["message"] == "no room"
    assert [action["status"] for action in made["next_actions"]] == ["error"] * 3
    shown = lab.api.get(f"/servers/{made['server']['id']}")["server"]
    assert (shown["status"], shown["private_net"], shown["volumes"]) == ("unknown", [], [])
    assert [verb for verb, id in lab.machines.calls if id == shown["id"]] == ["create_host"]
    lab.machines.fail.clear()
    lab.api.delete(f"/servers/{shown['id']}")
    lab.api.delete(f"/volumes/{volume}")
    assert lab.machines.hosts == {}


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("attach", "/servers/{server}/actions/attach_to_network", {"network": "{network}"}),
        ("attach_volume", "/volumes/{volume}/actions/attach", {"server": "{server}"}),
        ("resize_volume", "/volumes/{volume}/actions/resize", {"size": 99}),
    ],
)
def test_a_failed_action_is_rolled_back(lab: Lab, verb: str, path: str, body: dict[str, Any]) -> None:
    server, network = lab.server()["id"], lab.network()["id"]
    volume = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    ids = {"server": server, "network": network, "volume": volume}
    lab.wait_idle()
    lab.machines.fail[verb] = "it broke"
    body = {key: ids[value.strip("{}")] if isinstance(value, str) else value for key, value in body.items()}
    assert lab.api.post(path.format(**ids), body)["action"]["status"] == "error"
    shown, disk = lab.api.get(f"/servers/{server}")["server"], lab.api.get(f"/volumes/{volume}")["volume"]
    assert (shown["private_net"], shown["volumes"], disk["server"], disk["size"]) == ([], [], None, 10)


def test_a_volume_that_failed_is_removed(lab: Lab) -> None:
    lab.machines.fail["create_volume"] = "no space"
    made = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})
    assert made["action"]["status"] == "error"
    assert lab.api.get("/volumes")["volumes"] == []


def test_an_error_without_an_action_is_in_the_response_and_the_status(lab: Lab) -> None:
    lab.expect_converged = False
    lab.machines.fail["apply_network"] = "no namespace"
    status, payload = lab.api("POST", "/networks", {"name": "net", "ip_range": "10.0.0.0/16"})
    assert (status, payload["error"]) == (422, {"code": "service_error", "message": "no namespace", "details": None})
    problems = lab.api.http.get(f"{lab.url}/_lab/status").json()["problems"]
    assert "no namespace" in problems[-1]


def test_an_exception_in_the_backend_fails_the_action(lab: Lab) -> None:
    server = lab.off()["id"]
    lab.machines.power_on = lambda spec: 1 / 0  # type: ignore[assignment]
    action = lab.api.post(f"/servers/{server}/actions/poweron")["action"]
    del lab.machines.power_on
    assert "division by zero" in action["error"]["message"]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], []),
        ([("a", ""), ("b", ""), ("c", "")], [0, 1, 2]),
        ([("a", ""), ("a", ""), ("b", "")], [0, 2]),
        ([("a", ""), ("", "a"), ("", "a")], [0]),
        ([("", "a"), ("", "a"), ("a", ""), ("", "a")], [0, 1]),  # a holder runs before later sharers
        ([("a", ""), ("ab", ""), ("b", "")], [0]),
        ([("a", "n"), ("b", "n"), ("n", ""), ("c", "n")], [0, 1]),
        ([("*", ""), ("a", "")], [0]),
        ([("a", ""), ("*", ""), ("b", "")], [0]),
    ],
)
def test_runnable_jobs(jobs: list[tuple[str, str]], expected: list[int]) -> None:
    rows = [
        Job(id=id, created="", work="", keys=tuple(keys), shared=tuple(shared))
        for id, (keys, shared) in enumerate(jobs)
    ]
    assert [job.id for job in runnable(rows)] == expected


@pytest.mark.parametrize("count", [1, 2, 3])
def test_actions_of_a_resource_by_their_ids(lab: Lab, count: int) -> None:
    server = lab.server()["id"]
    for verb in ("poweroff", "poweron"):
        lab.api.post(f"/servers/{server}/actions/{verb}")
        lab.wait_idle()
    path = f"/servers/{server}/actions"
    ids = [action["id"] for action in lab.api.get(path)["actions"]]
    assert len(ids) > 3
    assert [action["id"] for action in lab.api.get(path, id=ids[:count])["actions"]] == ids[:count]
    assert lab.api.code("GET", path, id="x") == "invalid_input"


def test_settle_seconds_is_an_option(serve: Serve) -> None:
    lab = serve(settle_seconds=0.0, seconds=0.1)
    made = lab.api.post("/servers", BODY)
    assert made["action"]["status"] == "running"
    assert lab.api.get(f"/actions/{made['action']['id']}")["action"]["status"] == "success"
