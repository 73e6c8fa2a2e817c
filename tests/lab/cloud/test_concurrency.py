"""Parallel requests: every response is documented, and the final state is consistent."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from threading import Event
from typing import Any

import httpx
import pytest

from lab.machines.base import HostSpec
from lab.machines.stub import StubMachines
from tests.lab.cloud.conftest import Lab, Serve
from tests.lab.cloud.support import TOKEN

BODY = {"server_type": "cx23", "image": "debian-13", "location": "fsn1"}


@pytest.fixture
def busy(serve: Serve) -> Lab:
    """Slow machines, and responses that do not wait for them."""
    return serve(seconds=0.01, settle_seconds=0.0)


def in_parallel(lab: Lab, count: int, request_of: Any) -> list[tuple[int, Any]]:
    limits = httpx.Limits(max_connections=count)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        httpx.Client(base_url=lab.endpoint, headers=headers, timeout=30, limits=limits) as http,
        ThreadPoolExecutor(count) as pool,
    ):

        def one(number: int) -> tuple[int, Any]:
            method, path, body = request_of(number)
            answer = http.request(method, path, json=body)
            return answer.status_code, answer.json() if answer.content else None

        return list(pool.map(one, range(count)))


def test_a_name_is_used_once(busy: Lab) -> None:
    answers = in_parallel(busy, 16, lambda _: ("POST", "/servers", BODY | {"name": "web"}))
    assert Counter(status for status, _ in answers) == {201: 1, 409: 15}
    busy.check_converged()
    assert len(busy.machines.hosts) == 1


def test_thirty_parallel_servers_share_only_the_network(busy: Lab) -> None:
    network = busy.network()["id"]
    firewall = busy.api.post("/firewalls", {"name": "wall"})["firewall"]["id"]
    body = BODY | {"networks": [network], "firewalls": [{"firewall": firewall}]}
    answers = in_parallel(busy, 30, lambda number: ("POST", "/servers", body | {"name": f"s{number}"}))
    assert {status for status, _ in answers} == {201}
    busy.wait_idle()
    servers = busy.api.get("/servers", per_page=50)["servers"]
    assert {server["status"] for server in servers} == {"running"}
    for values in (
        [server["public_net"]["ipv4"]["ip"] for server in servers],
        [server["public_net"]["ipv6"]["ip"] for server in servers],
        [server["private_net"][0]["ip"] for server in servers],
        [server["private_net"][0]["mac_address"] for server in servers],
    ):
        assert len(set(values)) == 30
    busy.check_converged()


def test_subnets_never_overlap(busy: Lab) -> None:
    network = busy.api.post("/networks", {"name": "net", "ip_range": "10.0.0.0/16"})["network"]["id"]
    busy.wait_idle()
    body = {"type": "cloud", "network_zone": "eu-central"}
    answers = in_parallel(busy, 16, lambda _: ("POST", f"/networks/{network}/actions/add_subnet", body))
    assert {status for status, _ in answers} <= {201, 409}
    ranges = [IPv4Network(row["ip_range"]) for row in busy.api.get(f"/networks/{network}")["network"]["subnets"]]
    assert len(ranges) == sum(status == 201 for status, _ in answers)
    assert not any(one.overlaps(other) for one in ranges for other in ranges if one is not other)


def test_a_volume_is_attached_to_one_server(busy: Lab) -> None:
    volume = busy.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    servers = [busy.off(f"s{number}")["id"] for number in range(8)]
    answers = in_parallel(
        busy, 8, lambda number: ("POST", f"/volumes/{volume}/actions/attach", {"server": servers[number]})
    )
    statuses = Counter(status for status, _ in answers)
    assert statuses[201] == 1 and set(statuses) <= {201, 422, 423}
    busy.check_converged()


def test_random_parallel_requests(busy: Lab) -> None:
    """Random actions on a few shared objects from many clients."""
    networks = [busy.network(f"n{n}", f"10.{n}.0.0/16", f"10.{n}.1.0/24")["id"] for n in range(2)]
    servers = [busy.server(f"s{n}", labels={"role": "web"})["id"] for n in range(3)]
    volumes = [
        busy.api.post("/volumes", {"name": f"v{n}", "size": 10, "location": "fsn1"})["volume"]["id"] for n in range(2)
    ]
    firewall = busy.api.post("/firewalls", {"name": "wall"})["firewall"]["id"]
    busy.wait_idle()
    chance = random.Random(1)

    def random_request(_: int) -> tuple[str, str, Any]:
        server, network, volume = chance.choice(servers), chance.choice(networks), chance.choice(volumes)
        actions = f"/servers/{server}/actions"
        target = chance.choice([
            {"type": "server", "server": {"id": server}},
            {"type": "label_selector", "label_selector": {"selector": "role=web"}},
        ])  # fmt: skip
        verbs: list[tuple[str, str, Any]] = [
            ("POST", f"{actions}/{chance.choice(['poweron', 'poweroff', 'reset', 'reboot', 'shutdown'])}", None),
            ("POST", f"{actions}/attach_to_network", {"network": network}),
            ("POST", f"{actions}/detach_from_network", {"network": network}),
            ("POST", f"{actions}/rebuild", {"image": "debian-12"}),
            ("POST", f"/volumes/{volume}/actions/attach", {"server": server}),
            ("POST", f"/volumes/{volume}/actions/detach", None),
            ("POST", f"/firewalls/{firewall}/actions/apply_to_resources", {"apply_to": [target]}),
            ("POST", f"/firewalls/{firewall}/actions/remove_from_resources", {"remove_from": [target]}),
            ("PUT", f"/servers/{server}", {"labels": chance.choice([{}, {"role": "web"}])}),
            ("GET", f"/servers/{server}", None),
            (
                "POST",
                f"/networks/{network}/actions/add_route",
                {"destination": "10.99.0.0/24", "gateway": f"10.{networks.index(network)}.1.9"},
            ),
            (
                "POST",
                f"/networks/{network}/actions/delete_route",
                {"destination": "10.99.0.0/24", "gateway": f"10.{networks.index(network)}.1.9"},
            ),
        ]
        return chance.choice(verbs)

    seen: Counter[int] = Counter()
    for _ in range(12):
        seen.update(status for status, _ in in_parallel(busy, 24, random_request))
    assert set(seen) <= {200, 201, 404, 409, 422, 423}
    assert seen[201] > 60 and seen[423] > 10, seen
    busy.wait_idle()
    busy.check_converged()
    for server in busy.api.get("/servers")["servers"]:
        assert server["status"] in ("running", "off") and not server["locked"]
    commands = {action["status"] for action in busy.api.get("/servers/actions", per_page=50)["actions"]}
    assert "running" not in commands


class BlockingMachines(StubMachines):
    """The creation of the second host blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.release = Event(), Event()
        self.created = {"quick": Event(), "slow": Event()}

    def create_host(self, spec: HostSpec) -> None:
        if spec.name == "slow":
            self.started.set()
            assert self.release.wait(30)
        elif spec.name == "quick":
            assert self.started.wait(30)
            time.sleep(0.2)
        super().create_host(spec)
        self.created[spec.name].set()


def test_a_reset_waits_for_all_running_jobs(serve: Serve) -> None:
    machines = BlockingMachines()
    lab = serve(machines=machines, settle_seconds=0.0)
    for name in ("quick", "slow"):
        lab.api.post("/servers", BODY | {"name": name})
    assert machines.started.wait(30)
    lab.api.http.post(f"{lab.url}/_lab/reset").raise_for_status()
    assert machines.created["quick"].wait(30)
    time.sleep(0.2)
    machines.release.set()
    assert machines.created["slow"].wait(30)
    lab.check_converged()
    assert lab.machines.hosts == {}
