"""The cluster behind the load balancer: availability when a server loses power; test_pods.py restarts all of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hcloud import Client
from kubernetes import client as kubernetes
from kubernetes import config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.support.deadlines import until

SERVERS = ["lab-rke2-server-1", "lab-rke2-server-2", "lab-rke2-server-3"]
AGENTS = ["lab-rke2-agent-1"]
NAMESPACE = "default"
FAILURES = (ApiException, HTTPError, OSError)
OUTAGE_SECONDS = 20
"""Duration of the calls while a server has no power: the measured interval, not a wait."""


@pytest.fixture(scope="module")
def kubeconfig(description: dict[str, Any]) -> Path:
    return Path(description["secrets_path"]).parent / "ansible/kubeconfig"


@pytest.fixture
def core(kubeconfig: Path) -> kubernetes.CoreV1Api:
    return connect(kubeconfig)


def connect(kubeconfig: Path) -> kubernetes.CoreV1Api:
    """A new client with its own connections and without retries."""
    settings = kubernetes.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=settings)
    settings.retries = False
    return kubernetes.CoreV1Api(kubernetes.ApiClient(settings))


def conditions(core: kubernetes.CoreV1Api) -> dict[str, dict[str, str]]:
    """Node → type of condition → status."""
    nodes = core.list_node(_request_timeout=5).items
    return {node.metadata.name: {entry.type: entry.status for entry in node.status.conditions} for node in nodes}


def write(kubeconfig: Path, key: str, value: str) -> kubernetes.V1ConfigMap:
    """Write once; an attempt whose response was lost may have succeeded."""
    core = connect(kubeconfig)
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name=key), data={"cut": value})
    try:
        return core.create_namespaced_config_map(NAMESPACE, body, _request_timeout=5)
    except ApiException as error:
        if error.status != 409:
            raise
        return core.read_namespaced_config_map(key, NAMESPACE, _request_timeout=5)


@dataclass
class Calls:
    """Calls of a client, one per second, independent of the results of earlier calls."""

    kubeconfig: Path
    answered: list[tuple[float, float]] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        started = time.monotonic()
        try:
            connect(self.kubeconfig).list_node(_request_timeout=5)
            self.answered.append((started, time.monotonic()))
        except FAILURES as error:
            self.failed.append((started, repr(error)))

    def run(self) -> None:
        threads = []
        while not self.stop.wait(1):
            threads.append(threading.Thread(target=self.call))
            threads[-1].start()
        for thread in threads:
            thread.join()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()


def test_every_node_is_ready_and_every_server_votes(core: kubernetes.CoreV1Api) -> None:
    seen = conditions(core)
    assert sorted(seen) == sorted(SERVERS + AGENTS)
    assert {name: entry["Ready"] for name, entry in seen.items()} == dict.fromkeys(SERVERS + AGENTS, "True")
    assert {name: seen[name]["EtcdIsVoter"] for name in SERVERS} == dict.fromkeys(SERVERS, "True")


def test_the_kubeconfig_is_readable_by_its_owner_only(kubeconfig: Path) -> None:
    assert kubeconfig.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", [SERVERS[0], *(pytest.param(name, marks=pytest.mark.soak) for name in SERVERS[1:])])
def test_a_server_without_power_causes_at_most_one_failed_call_and_rejoins(
    cloud: Client, kubeconfig: Path, core: kubernetes.CoreV1Api, name: str
) -> None:
    calls = Calls(kubeconfig)
    key = f"written-without-{name}"
    server = cloud.servers.get_by_name(name)
    assert server is not None
    try:
        with calls.running():
            until(lambda: calls.answered, 10)
            power_cut = time.monotonic()
            server.power_off().wait_until_finished()
            until(
                lambda: write(kubeconfig, key, name),
                10,
                lambda written: written.data == {"cut": name},
                errors=FAILURES,
            )
            time.sleep(OUTAGE_SECONDS)
    finally:
        server.power_on().wait_until_finished()
    first = min(done for started, done in calls.answered if started > power_cut)
    assert first - power_cut <= 5, f"the API responded again after {first - power_cut:.1f} s"
    assert len(calls.failed) <= 1, calls.failed

    def returned(seen: dict[str, dict[str, str]]) -> bool:
        return all(entry["Ready"] == "True" for entry in seen.values()) and seen[name]["EtcdIsVoter"] == "True"

    until(lambda: conditions(core), 180, returned, errors=FAILURES)
    assert core.read_namespaced_config_map(key, NAMESPACE).data == {"cut": name}
    core.delete_namespaced_config_map(key, NAMESPACE)


@contextmanager
def cordons(kubeconfig: Path) -> Iterator[list[set[str]]]:
    """Twice a second, the nodes that are cordoned."""
    seen: list[set[str]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            with contextlib.suppress(*FAILURES):
                nodes = connect(kubeconfig).list_node(_request_timeout=5).items
                seen.append({node.metadata.name for node in nodes if node.spec.unschedulable})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
