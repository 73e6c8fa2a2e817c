"""A simulated API server with a real etcd on loopback, for the test session."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.rke2sim import package
from lab.rke2sim.runtime.api import Api
from lab.rke2sim.runtime.config import Config
from lab.rke2sim.runtime.controllers import Controllers
from lab.rke2sim.runtime.etcd import Etcd, EtcdError
from lab.rke2sim.runtime.http import Client, Server, server_context
from lab.rke2sim.runtime.pki import issue, make_ca
from lab.rke2sim.runtime.resources import Catalogue
from lab.rke2sim.runtime.server import first_objects
from lab.rke2sim.runtime.store import Store
from lab.settings import Settings

RELEASE = "v1.36.3+rke2r1"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def programs() -> Path:
    """Debian 13's etcd and etcdctl, from the cache of the lab's mirror."""
    return package.programs(Settings.from_environment().cache_dir / "rke2sim")


@dataclass
class Cluster:
    """The API at `url`, with an administrator's `kubeconfig`; `run` executes on its event loop."""

    url: str
    kubeconfig: Path
    folder: Path
    etcd: Etcd
    store: Store
    api: Api
    loop: asyncio.AbstractEventLoop

    def run(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(30)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'cache'}", *arguments],
            input=stdin, capture_output=True, text=True, check=check, timeout=60,
        )  # fmt: skip


async def serve(folder: Path, etcd: Etcd, ready: Future[tuple[Store, Api, int]], stop: asyncio.Event) -> None:
    catalogue = Catalogue()
    store = Store(etcd, catalogue, "0" * 64)
    api = Api(store, catalogue, RELEASE, "127.0.0.1")
    following = asyncio.create_task(store.follow())
    await store.synced.wait()
    await first_objects(api, catalogue)
    controlling = asyncio.create_task(Controllers(Config("server", {}), store, api, "test").run())
    api_server = Server(api.handle)
    await api_server.listen(
        0, server_context(folder / "server.crt", folder / "server.key", folder / "client-ca.crt"), "127.0.0.1"
    )
    ready.set_result((store, api, api_server.ports[0]))
    await stop.wait()
    api.stopping.set()
    await api_server.close()
    for task in (following, controlling):
        task.cancel()
    await asyncio.gather(following, controlling, return_exceptions=True)


def write_kubeconfig(path: Path, url: str) -> None:
    folder = path.parent
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {"name": "test", "cluster": {"server": url, "certificate-authority": str(folder / "server-ca.crt")}}
        ],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [
            {
                "name": "test",
                "user": {"client-certificate": str(folder / "admin.crt"), "client-key": str(folder / "admin.key")},
            }
        ],
    }
    path.write_text(yaml.safe_dump(document))


@pytest.fixture(scope="session")
def cluster(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("rke2sim")
    for ca in ("server-ca", "client-ca"):
        make_ca(folder / f"{ca}.crt", folder / f"{ca}.key", ca)
    server_ca = folder / "server-ca.crt", folder / "server-ca.key"
    client_ca = folder / "client-ca.crt", folder / "client-ca.key"
    issue(server_ca, folder / "server.crt", folder / "server.key", "api", names=["127.0.0.1"], usage="serverAuth")
    issue(client_ca, folder / "admin.crt", folder / "admin.key", "system:admin", organization="system:masters")
    issue(client_ca, folder / "guest.crt", folder / "guest.key", "guest", organization="guests")
    client_port, peer_port = free_port(), free_port()
    url, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    etcd_process = subprocess.Popen(
        [programs / "etcd", "--data-dir", folder / "etcd", "--listen-client-urls", url, "--advertise-client-urls", url,
         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
         "--unsafe-no-fsync", "--log-level", "error"],
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    etcd = Etcd(Client("127.0.0.1", client_port, None))
    deadline = time.monotonic() + 60
    while True:
        try:
            asyncio.run_coroutine_threadsafe(etcd.call("kv/range", {"key": "MA=="}, 2), loop).result()
            break
        except EtcdError:
            assert time.monotonic() < deadline, "etcd did not start within 60 s"
            time.sleep(0.1)
    ready: Future[tuple[Store, Api, int]] = Future()
    stop = asyncio.Event()
    serving = asyncio.run_coroutine_threadsafe(serve(folder, etcd, ready, stop), loop)
    store, api, port = ready.result(20)
    write_kubeconfig(folder / "kubeconfig", f"https://127.0.0.1:{port}")
    yield Cluster(f"https://127.0.0.1:{port}", folder / "kubeconfig", folder, etcd, store, api, loop)
    loop.call_soon_threadsafe(stop.set)
    serving.result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    etcd_process.terminate()
    etcd_process.wait(10)
