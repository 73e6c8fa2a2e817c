"""A cloud on a free port of loopback with stub machines. The oracle validates every response."""

from __future__ import annotations

import subprocess
import threading
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
from tests.lab.cloud.support import RATE_LIMIT, TOKEN, differences, listen
from tests.support.deadlines import until


@dataclass
class Api:
    """Plain HTTP with the token: the status and the JSON of each response."""

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
        """The code of the expected error."""
        status, payload = self(method, path, body, **query)
        assert status >= 400, f"{method} {path} {body} → {status} {payload}"
        code: str = payload["error"]["code"]
        return code

    def message(self, method: str, path: str, body: Any = None) -> str:
        message: str = self(method, path, body)[1]["error"]["message"]
        return message


@dataclass
class Lab:
    """A running cloud with its clients and test doubles."""

    url: str
    cloud: Cloud
    machines: StubMachines
    oracle: Oracle
    api: Api
    client: Client
    stop: Callable[[], None]
    expect_converged: bool = True
    """Whether the machines must equal the store at the end; tests of failing machines set it to False."""
    ids: dict[str, int] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1"

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until no job is pending."""

        def pending() -> list[Job]:
            with self.cloud.store.transaction() as tx:
                return tx.all(Job)

        until(pending, seconds, lambda jobs: not jobs, pause=0.01)

    def server(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        """A created server, running unless `start_after_create` is false."""
        body = {"name": name, "server_type": "cx23", "image": "debian-13", "location": "fsn1"} | more
        created = self.api.post("/servers", body)
        self.wait_idle()
        shown: dict[str, Any] = self.api.get(f"/servers/{created['server']['id']}")["server"]
        return shown

    def off(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        return self.server(name, start_after_create=False, **more)

    def network(self, name: str = "net", ip_range: str = "10.0.0.0/16", subnet: str = "10.0.1.0/24") -> dict[str, Any]:
        subnets = [{"type": "cloud", "network_zone": "eu-central", "ip_range": subnet}]
        made: dict[str, Any] = self.api.post("/networks", {"name": name, "ip_range": ip_range, "subnets": subnets})
        return made["network"]  # type: ignore[no-any-return]

    def check_converged(self) -> None:
        """The machines equal the store, and no caller violated their contract."""
        self.wait_idle()
        assert differences(self.cloud) == []


Serve = Callable[..., Lab]


@contextmanager
def serving(folder: Path, seconds: float = 0.0, machines: StubMachines | None = None, **options: Any) -> Iterator[Lab]:
    settings = Settings(name="test", slot=7, state_root=folder)
    machines = machines or StubMachines(seconds=seconds)
    store = Store(settings.database)
    app = create_app(settings, store, machines, token=TOKEN, **({"rate_limit": RATE_LIMIT} | options))
    machines.on_exit = app.state.cloud.on_exit
    oracle = Oracle(app)
    listener = listen()
    server = uvicorn.Server(uvicorn.Config(oracle, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), 60, pause=0.005)
    assert server.started, "the cloud does not start"

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
    """Start clouds with other options; all on one store, one after the other."""
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
def session_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serving(tmp_path_factory.mktemp("cloud")) as lab:
        yield lab


@pytest.fixture
def lab(session_lab: Lab) -> Iterator[Lab]:
    """The cloud that most tests share, reset after each."""
    lab = session_lab
    lab.expect_converged = True
    yield lab
    lab.machines.fail.clear()
    try:
        if lab.expect_converged:
            lab.check_converged()
        assert lab.oracle.violations == []
    finally:
        lab.wait_idle()
        lab.api.http.post(f"{lab.url}/_lab/reset").raise_for_status()
        lab.wait_idle()
        lab.machines.broken.clear()
        lab.machines.calls.clear()
        lab.machines.passwords.clear()
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
