"""`rke2 agent`: register with the cluster by token, then renew the lease and run the ingress."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

from . import log
from .api_client import ApiClient
from .checks import host_checks
from .config import Config
from .kubelet import Kubelet
from .layout import Layout, Release, default_address
from .log import Fatal
from .notify import notify
from .pki import write
from .resources import Obj
from .supervisor import Registration, node_password
from .tokens import Token

RETRY_SECONDS = 2


def node_name(config: Config) -> str:
    return (config.text("node-name") or socket.gethostname()).lower()


def node_addresses(config: Config) -> list[str]:
    return config.words("node-ip") or [default_address()]


async def register(registration: Registration, name: str) -> Obj:
    """Retry until the cluster issues a certificate; also after a rejected node password, as upstream."""
    headers = {"rke2-Node-Name": name, "rke2-Node-Password": node_password()}
    while True:
        try:
            cluster: Obj = await registration.request("/v1-rke2/config")
            identity: Obj = await registration.request("/v1-rke2/client-kubelet", headers)
        except (OSError, TimeoutError, ValueError) as fault:
            reason = str(fault) or type(fault).__name__
            log.error(f"Waiting to retrieve agent configuration; server is not ready: {registration.url}: {reason}")
            await asyncio.sleep(RETRY_SECONDS)
            continue
        return {"cluster": cluster, **identity}


def save_identity(layout: Layout, identity: Obj, ca: str) -> tuple[Path, Path, Path]:
    paths = layout.agent / "server-ca.crt", layout.agent / "client-kubelet.crt", layout.agent / "client-kubelet.key"
    write(paths[0], ca, 0o644)
    write(paths[1], identity["certificate"], 0o644)
    write(paths[2], identity["key"])
    write(layout.agent / "client-ca.crt", identity["client_ca"], 0o644)
    return paths


async def run(config: Config, release: Release) -> None:
    layout = Layout(config.data_dir)
    if not config.text("server"):
        raise Fatal("--server is required")
    token = Token.parse(config.secret("token"))
    host_checks(config)
    log.info(f"Starting rke2 agent {release.version} ({release.commit}) - a simulation")
    name = node_name(config)
    registration = Registration(config.text("server"), token, "agent")
    identity = await register(registration, name)
    paths = save_identity(layout, identity, registration.ca)
    hosts = list(identity["servers"])

    def remember(addresses: list[str]) -> None:
        api.set_hosts(addresses)
        write(layout.load_balancer, json.dumps({"ServerURL": registration.url, "ServerAddresses": addresses}))
        log.info(f"Updated load balancer rke2-api-server-agent-load-balancer server addresses -> {addresses}")

    api = ApiClient(*paths, hosts)
    remember(hosts)
    kubelet = Kubelet(config, layout, release, name, node_addresses(config), api, cluster=identity["cluster"])
    kubelet.server_addresses_changed = remember
    tasks: set[asyncio.Task[Any]] = set()
    await kubelet.start(tasks)
    log.info("rke2 agent is up and running")
    notify("READY=1")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for task in tasks:
        task.cancel()
