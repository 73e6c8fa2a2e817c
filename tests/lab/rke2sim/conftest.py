"""Programs of the simulated release, and an API server over etcd on loopback, for the test session."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import mirror
from lab.kubernetes import build
from lab.rke2sim import package
from lab.rke2sim.runtime.api_client import ApiClient
from lab.rke2sim.runtime.controllers import create_definitions
from lab.rke2sim.runtime.pki import issue, make_ca, openssl, write
from lab.settings import Settings
from tests.support.deadlines import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def programs() -> Path:
    """Debian 13's etcd, etcdctl, openssl and runc, from the cache of the lab's mirror."""
    return package.programs(Settings.from_environment().cache_dir / "rke2sim")


@pytest.fixture(scope="session")
def kubernetes() -> Path:
    """The programs of Kubernetes, from the lab's cache; built if `lab up` did not yet."""
    return build.programs(Settings.from_environment().cache_dir, mirror.VERSIONS, print)[mirror.VERSIONS[0]]


@dataclass
class Cluster:
    """An API server, an administrator's client, and the event loop that the client belongs to."""

    api: ApiClient
    loop: asyncio.AbstractEventLoop

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def get(self, path: str) -> Any:
        answer = self.run(self.api.call("GET", path))
        return answer.json() if answer.status == 200 else None


@pytest.fixture(scope="session")
def cluster(programs: Path, kubernetes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("api")
    make_ca(folder / "ca.crt", folder / "ca.key", "ca")
    ca = folder / "ca.crt", folder / "ca.key"
    issue(ca, folder / "server.crt", folder / "server.key", "api", names=["127.0.0.1"], usage="serverAuth")
    issue(ca, folder / "admin.crt", folder / "admin.key", "admin", organization="system:masters")
    write(folder / "service.key", openssl("genrsa", "-traditional", "2048"))
    client, peer, port = (free_port() for _ in range(3))
    (folder / "kube-apiserver").symlink_to(kubernetes / "kubernetes")
    commands = [
        [programs / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "error",
         "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
         "--listen-peer-urls", f"http://127.0.0.1:{peer}"],
        [folder / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{client}", f"--secure-port={port}",
         "--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
         f"--client-ca-file={folder / 'ca.crt'}", f"--tls-cert-file={folder / 'server.crt'}",
         f"--tls-private-key-file={folder / 'server.key'}", "--service-account-issuer=https://kubernetes.default.svc",
         "--allow-privileged", f"--service-account-key-file={folder / 'service.key'}",
         "--service-cluster-ip-range=10.43.0.0/16",
         f"--service-account-signing-key-file={folder / 'service.key'}", f"--cert-dir={folder}"],
    ]  # fmt: skip
    log = (folder / "log").open("wb")
    processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pair = folder / "admin.crt", folder / "admin.key"
    found = Cluster(ApiClient(folder / "ca.crt", *pair, ["127.0.0.1"], port=port), loop)

    def ready() -> bool:
        return found.run(found.api.call("GET", "/readyz")).status == 200

    try:
        until(ready, 60, errors=(OSError,))
        found.run(create_definitions(found.api))
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
        log.close()
