"""A cloud on a free port of loopback, with machines that are only a record. Every answer passes the oracle."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hcloud import Client

from lab.cloud.app import Cloud, create_app
from lab.cloud.domain.objects import Job
from lab.cloud.store import Store
from lab.machines.stub import StubMachines
from lab.settings import Settings
from tests.lab.cloud.oracle import Oracle
from tests.lab.cloud.support import TOKEN, listen, out_of_line


@dataclass
class Api:
    """Plain HTTP with the token: the status and the JSON of each answer."""

    http: httpx.Client

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        answer = self.http.request(method, path, json=body, params=query or None)
        return answer.status_code, answer.json() if answer.content else None

    def ok(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        status, payload = self(method, path, body, **query)
        assert status < 300, f"{method} {path} {body} → {status} {payload}"
        return payload

    def get(self, path: str, **query: Any) -> Any:
        return self.ok("GET", path, **query)

    def post(self, path: str, body: Any = None) -> Any:
        return self.ok("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self.ok("PUT", path, body)

    def delete(self, path: str) -> Any:
        return self.ok("DELETE", path)

    def code(self, method: str, path: str, body: Any = None, **query: Any) -> str:
        """The code of the error that must come."""
        status, payload = self(method, path, body, **query)
        assert status >= 400, f"{method} {path} {body} → {status} {payload}"
        code: str = payload["error"]["code"]
        return code

    def message(self, method: str, path: str, body: Any = None) -> str:
        message: str = self(method, path, body)[1]["error"]["message"]
        return message


@dataclass
class Lab:
    """A running cloud and all that a test may want of it."""

    url: str
    cloud: Cloud
    machines: StubMachines
    oracle: Oracle
    api: Api
    client: Client
    stop: Callable[[], None]
    in_line: bool = True
    """Whether the machines must be as the store says at the end; tests that make verbs fail switch it off."""
    ids: dict[str, int] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def quiet(self, seconds: float = 60) -> None:
        """Wait until no work is left."""
        end = time.monotonic() + seconds
        while True:
            with self.cloud.store.transaction() as tx:
                jobs = tx.all(Job)
            if not jobs:
                return
            assert time.monotonic() < end, f"still to be done: {jobs}"
            time.sleep(0.01)

    def server(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        """A server that has come up (or stays off when told so)."""
        body = {"name": name, "server_type": "cx23", "image": "debian-13", "location": "fsn1"} | more
        created = self.api.post("/servers", body)
        self.quiet()
        shown: dict[str, Any] = self.api.get(f"/servers/{created['server']['id']}")["server"]
        return shown

    def off(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        return self.server(name, start_after_create=False, **more)

    def network(self, name: str = "net", ip_range: str = "10.0.0.0/16", subnet: str = "10.0.1.0/24") -> dict[str, Any]:
        subnets = [{"type": "cloud", "network_zone": "eu-central", "ip_range": subnet}]
        made: dict[str, Any] = self.api.post("/networks", {"name": name, "ip_range": ip_range, "subnets": subnets})
        return made["network"]  # type: ignore[no-any-return]

    def check_line(self) -> None:
        """The machines are what the store wants, and nobody broke their contract."""
        self.quiet()
        assert out_of_line(self.cloud) == []


Serve = Callable[..., Lab]


@contextmanager
def serving(folder: Path, seconds: float = 0.0, machines: StubMachines | None = None, **options: Any) -> Iterator[Lab]:
    settings = Settings(name="test", slot=7, state_root=folder)
    machines = machines or StubMachines(seconds=seconds)
    store = Store(settings.database)
    app = create_app(settings, store, machines, token=TOKEN, **options)
    machines.on_exit = app.state.cloud.on_exit
    oracle = Oracle(app)
    listener = listen()
    server = uvicorn.Server(uvicorn.Config(oracle, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the cloud does not start"
        time.sleep(0.005)

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=30)
        store.close()

    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=30) as http:
        client = Client(token=TOKEN, api_endpoint=f"{url}/v1", poll_interval=0.05)
        yield Lab(url, app.state.cloud, machines, oracle, Api(http), client, stop)
    stop()
    assert not thread.is_alive(), "the cloud does not stop"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start clouds with options of one's own; all on one store, one after the other."""
    labs: list[Lab] = []
    with ExitStack() as stack:

        def start(**options: Any) -> Lab:
            lab = stack.enter_context(serving(tmp_path, **options))
            labs.append(lab)
            return lab

        yield start
    for lab in labs:
        assert lab.oracle.violations == []


@pytest.fixture(scope="session")
def standing_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serving(tmp_path_factory.mktemp("cloud")) as lab:
        yield lab


@pytest.fixture
def lab(standing_lab: Lab) -> Iterator[Lab]:
    """The cloud that most tests share, empty again for each."""
    lab = standing_lab
    lab.in_line = True
    yield lab
    lab.machines.fail.clear()
    try:
        if lab.in_line:
            lab.check_line()
        assert lab.oracle.violations == []
    finally:
        lab.quiet()
        lab.api.http.post(f"{lab.url}/_lab/reset").raise_for_status()
        lab.quiet()
        lab.machines.broken.clear()
        lab.machines.calls.clear()
        lab.oracle.violations.clear()
        lab.oracle.seen.clear()


@pytest.fixture
def api(lab: Lab) -> Api:
    return lab.api


@pytest.fixture
def client(lab: Lab) -> Client:
    return lab.client


@pytest.fixture(scope="session")
def public_keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("keys")
    keys = []
    for number in range(3):
        path = folder / f"key{number}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"key{number}@test", "-f", str(path)]
        subprocess.run(command, check=True)
        keys.append(path.with_suffix(".pub").read_text().strip())
    return keys


@pytest.fixture(scope="session")
def public_key(public_keys: list[str]) -> str:
    return public_keys[0]
