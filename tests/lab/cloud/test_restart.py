"""Durability: after a clean stop, after a stop with running jobs, and after kill -9 at any moment."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.cloud.domain import actions
from lab.cloud.domain.objects import KINDS, Job, Network, Server
from lab.cloud.store import FIRST_ID, Store
from lab.machines.stub import StubMachines
from tests.lab.cloud.conftest import Serve
from tests.lab.cloud.support import TOKEN
from tests.support.deadlines import until

ROOT = Path(__file__).parents[3]
BODY = {"name": "web-1", "server_type": "cx23", "image": "debian-13", "location": "fsn1"}


# The store


def network(store: Store, name: str) -> Network:
    with store.transaction() as tx:
        return tx.put(Network(id=tx.new_id(), created=tx.now, name=name, ip_range="10.0.0.0/16"))


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    kept, gone = network(store, "kept"), network(store, "gone")
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        tx.drop(gone)
        tx.put(Network(id=tx.new_id(), created=tx.now, name="new", ip_range="10.1.0.0/16"))
        tx.put(Network(id=kept.id, created=kept.created, name="renamed", ip_range=kept.ip_range))
        _ = 1 / 0
    for opened in (store, Store(tmp_path / "db")):
        with opened.transaction() as tx:
            assert tx.all(Network) == [kept, gone]
            assert tx.next_id == FIRST_ID + 2


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    kept = network(store, "kept")
    with sqlite3.connect(tmp_path / "db") as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON object BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="disk full"):
        network(store, "lost")
    with store.transaction() as tx:
        assert tx.all(Network) == [kept]


def test_the_file_is_private_and_every_commit_is_flushed(tmp_path: Path) -> None:
    store = Store(tmp_path / "folder" / "db")
    assert (tmp_path / "folder" / "db").stat().st_mode & 0o777 == 0o600
    assert store._sql.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_transaction_without_a_change_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    network(store, "net")
    written = store._sql.total_changes
    with store.transaction() as tx:
        tx.all(Network)
    assert store._sql.total_changes == written


def test_jobs_are_passed_on_in_the_order_of_their_ids(tmp_path: Path) -> None:
    store, ids = Store(tmp_path / "db"), []
    store.committed = lambda jobs: ids.extend(job.id for job in jobs)

    def work() -> None:
        for _ in range(50):
            with store.transaction() as tx:
                actions.enqueue(tx, "sync_network")
                actions.enqueue(tx, "sync_firewall")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 800 and ids == sorted(ids)


def test_jobs_of_an_older_database_are_renamed(tmp_path: Path) -> None:
    with Store(tmp_path / "db").transaction() as tx:
        actions.enqueue(tx, "sync_leg")
    with Store(tmp_path / "db").transaction() as tx:
        assert [job.work for job in tx.all(Job)] == ["sync_attachment"]


# A restart


def everything(api: Any) -> dict[str, Any]:
    kinds = (
        "servers", "networks", "firewalls", "volumes", "primary_ips", "placement_groups", "ssh_keys", "floating_ips",
        "zones", "images",
    )  # fmt: skip
    return {kind: api.get(f"/{kind}")[kind] for kind in kinds} | {"rrsets": api.get("/zones/example.com/rrsets")}


def test_a_restart_keeps_every_object(serve: Serve, public_key: str) -> None:
    lab = serve()
    key = lab.api.post("/ssh_keys", {"name": "key", "public_key": public_key})["ssh_key"]["id"]
    net = lab.network()["id"]
    rule = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["::/0"], "description": "ssh"}
    firewall = lab.api.post("/firewalls", {"name": "wall", "rules": [rule]})["firewall"]["id"]
    group = lab.api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    volume = lab.api.post("/volumes", {"name": "disk", "size": 10, "location": "fsn1"})["volume"]["id"]
    up = lab.server(
        ssh_keys=[key], networks=[net], firewalls=[{"firewall": firewall}], placement_group=group, volumes=[volume]
    )
    down = lab.off("down")
    lab.api.post(f"/servers/{up['id']}/actions/enable_rescue")
    lab.api.post("/floating_ips", {"type": "ipv6", "server": up["id"]})
    lab.api.post(f"/servers/{down['id']}/actions/create_image", {"labels": {"a": "b"}})
    lab.api.post("/zones", {"name": "example.com", "mode": "primary"})
    lab.api.post(f"/networks/{net}/actions/add_route", {"destination": "10.9.0.0/16", "gateway": "10.0.1.2"})
    lab.wait_idle()
    before, actions_before = everything(lab.api), lab.api.get("/servers/actions")["actions"]
    lab.stop()

    # New stub machines: the reconciliation creates every host again.
    again = serve()
    again.wait_idle()
    assert everything(again.api) == before
    assert again.api.get("/servers/actions")["actions"] == actions_before
    again.check_converged()
    assert again.network("other", "192.168.0.0/16", "192.168.1.0/24")["id"] > max(row["id"] for row in actions_before)


def test_interrupted_jobs_are_resumed(serve: Serve) -> None:
    lab = serve(settle_seconds=0.0)
    gate = threading.Event()
    real = lab.machines.create_host

    def delayed(spec: Any) -> None:
        gate.wait(0.5)
        real(spec)

    lab.machines.create_host = delayed  # type: ignore[method-assign]
    net = lab.network()["id"]
    made = lab.api.post("/servers", BODY | {"networks": [net]})
    started = [made["action"], *made["next_actions"]]
    assert [action["status"] for action in started] == ["running"] * 3
    ids = [action["id"] for action in started]
    lab.stop()

    again = serve()
    again.wait_idle()
    assert [action["status"] for action in again.api.get("/actions", id=ids)["actions"]] == ["success"] * 3
    assert again.api.get(f"/servers/{made['server']['id']}")["server"]["status"] == "running"
    again.check_converged()


def test_the_api_responds_while_machines_are_reconciled(serve: Serve) -> None:
    gate = threading.Event()

    class Slow(StubMachines):
        def reconcile(self, desired: Any) -> list[str]:
            assert gate.wait(120)
            return super().reconcile(desired)

    lab = serve(machines=Slow())
    assert lab.api.get(f"{lab.url}/_lab/status")["reconciling"] is True
    made = lab.api.post("/servers", BODY)
    assert made["action"]["status"] == "running", "jobs wait for the reconciliation"
    gate.set()
    lab.wait_idle()
    assert lab.api.get(f"/servers/{made['server']['id']}")["server"]["status"] == "running"
    assert lab.api.get(f"{lab.url}/_lab/status")["reconciling"] is False
    lab.check_converged()


def test_every_kind_of_object_can_be_read_back(serve: Serve, public_key: str) -> None:
    lab = serve()
    key = lab.api.post("/ssh_keys", {"name": "key", "public_key": public_key})["ssh_key"]["id"]
    group = lab.api.post("/placement_groups", {"name": "group", "type": "spread"})["placement_group"]["id"]
    server = lab.server(networks=[lab.network()["id"]], ssh_keys=[key], placement_group=group)["id"]
    target = {"type": "server", "server": {"id": server}}
    lab.api.post("/firewalls", {"name": "wall", "apply_to": [target]})
    lab.api.post("/volumes", {"name": "disk", "size": 10, "server": server})
    lab.api.post("/floating_ips", {"type": "ipv4", "server": server})
    lab.api.post("/zones", {"name": "example.com", "mode": "primary"})
    lab.wait_idle()
    lab.api.post(f"/servers/{server}/actions/create_image")
    body = {"name": "web", "type": "managed", "domain_names": ["www.example.com"]}
    certificate = lab.api.post("/certificates", body)["certificate"]["id"]
    services = [{"protocol": "https", "http": {"certificates": [certificate], "sticky_sessions": True}}]
    body = {"name": "lb", "load_balancer_type": "lb11", "location": "fsn1", "services": services, "targets": [target]}
    lab.api.post("/load_balancers", body)
    lab.wait_idle()
    lab.stop()
    store = Store(lab.cloud.settings.database)
    with store.transaction() as tx:
        actions.enqueue(tx, "filter_host", *tx.all(Server), share=tx.all(Network))
        kept = {kind: tx.all(kind) for kind in KINDS}
    assert all(kept.values()), "a kind without an object"
    with Store(lab.cloud.settings.database).transaction() as tx:
        assert {kind: tx.all(kind) for kind in KINDS} == kept


# kill -9


@dataclass
class Acknowledged:
    """Acknowledged state: the labels of each object, or None after its deletion."""

    labels: dict[str, dict[str, str] | None] = field(default_factory=dict)
    actions: set[int] = field(default_factory=set)
    highest: int = 0
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, path: str, labels: dict[str, str] | None, payload: Any = None) -> None:
        with self.lock:
            self.labels[path] = labels
            self.count += 1
            self.highest = max(self.highest, int(path.rpartition("/")[2]))
            for key in ("action", "actions", "next_actions"):
                found = (payload or {}).get(key) or []
                self.actions |= {action["id"] for action in (found if isinstance(found, list) else [found])}

    def discard(self, path: str) -> None:
        with self.lock:
            self.labels.pop(path, None)


CREATIONS: dict[str, dict[str, Any]] = {
    "servers": {"server_type": "cx23", "image": "debian-13", "location": "fsn1"},
    "networks": {"ip_range": "10.0.0.0/16"},
    "volumes": {"size": 10, "location": "fsn1"},
    "placement_groups": {"type": "spread"},
    "firewalls": {"rules": []},
    "primary_ips": {"type": "ipv6", "location": "fsn1"},
}


def load(url: str, acknowledged: Acknowledged, number: int, stop: threading.Event) -> None:
    """One client: creates, relabels and deletes objects until the cloud is killed."""
    chance = random.Random(number)
    owned: list[str] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=5) as http:
        for count in range(100_000):
            if stop.is_set():
                return
            path = ""
            try:
                if len(owned) < 3 or chance.random() < 0.5:
                    plural = chance.choice(list(CREATIONS))
                    labels = {"n": str(count)}
                    body = CREATIONS[plural] | {"name": f"c{number}-{count}-{time.time_ns()}", "labels": labels}
                    answer = http.post(f"/{plural}", json=body)
                    if answer.status_code == 201:
                        payload = answer.json()
                        path = f"/{plural}/{payload[plural.removesuffix('s')]['id']}"
                        owned.append(path)
                        acknowledged.record(path, labels, payload)
                elif chance.random() < 0.6:
                    path = chance.choice(owned)
                    labels = {"n": str(count), "changed": "yes"}
                    if http.put(path, json={"labels": labels}).status_code == 200:
                        acknowledged.record(path, labels)
                else:
                    path = owned.pop(0)
                    answer = http.delete(path)
                    if answer.status_code < 300:
                        acknowledged.record(path, None, answer.json() if answer.content else None)
            except httpx.TransportError:
                acknowledged.discard(path)
                return


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.lab.cloud.process", str(folder)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait()


def wait_idle(http: httpx.Client, url: str) -> None:
    def is_idle(status: dict[str, Any]) -> bool:
        return not (status["counts"]["job"] or status["reconciling"])

    assert until(lambda: http.get(f"{url}/_lab/status").json(), 120, is_idle, pause=0.02)["problems"] == []


def pages(http: httpx.Client, path: str, key: str, **query: Any) -> Iterator[dict[str, Any]]:
    page: int | None = 1
    while page:
        payload = http.get(path, params={"page": page, "per_page": 50} | query).json()
        yield from payload[key]
        page = payload["meta"]["pagination"]["next_page"]


def check(url: str, acknowledged: Acknowledged) -> None:
    with httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as http:
        wait_idle(http, url)
        there = {
            f"/{plural}/{row['id']}": row["labels"] for plural in CREATIONS for row in pages(http, f"/{plural}", plural)
        }
        for path, labels in acknowledged.labels.items():
            assert there.get(path) == labels, path
        actions = sorted(acknowledged.actions)
        for start in range(0, len(actions), 50):
            ids = actions[start : start + 50]
            found = {action["id"]: action["status"] for action in pages(http, "/actions", "actions", id=ids)}
            assert found == dict.fromkeys(ids, "success")
        body = {"name": f"fresh-{time.time_ns()}", "ip_range": "10.0.0.0/16"}
        fresh = http.post("/networks", json=body).json()["network"]["id"]
        assert fresh > acknowledged.highest
        http.delete(f"/networks/{fresh}")


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged, chance = Acknowledged(), random.Random(9)
    for round in range(5):
        with process(tmp_path) as (child, url):
            check(url, acknowledged)
            stop = threading.Event()
            clients = [
                threading.Thread(target=load, args=(url, acknowledged, 10 * round + number, stop), daemon=True)
                for number in range(4)
            ]
            for client in clients:
                client.start()
            enough = acknowledged.count + chance.randint(20, 80)
            until(lambda: acknowledged.count, 120, enough.__le__, pause=0.001)
            time.sleep(chance.random() / 50)
            child.send_signal(signal.SIGKILL)
            stop.set()
            for client in clients:
                client.join(60)
    assert None in acknowledged.labels.values() and len(acknowledged.actions) > 20, (
        "too few acknowledged changes for this test"
    )
    with process(tmp_path) as (child, url):
        check(url, acknowledged)
        child.send_signal(signal.SIGTERM)
        assert child.stdout and json.loads(child.stdout.read()) == []
