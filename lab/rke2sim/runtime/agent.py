"""`rke2 agent`: register with the cluster by token, then run containerd, the kubelet and kube-proxy."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

from . import archives, containerd, kubelet, log
from .api_client import ApiClient
from .checks import host_checks
from .config import Config
from .control_plane import write_kube_proxy
from .http import background
from .layout import Layout, Release, default_address
from .load_balancer import LoadBalancer
from .log import Fatal
from .notify import notify
from .pki import write
from .processes import Child
from .resources import Obj
from .supervisor import Registration, node_password
from .tokens import Token

RETRY_SECONDS = 2
SERVERS_SECONDS = 10


def node_name(config: Config) -> str:
    return (config.text("node-name") or socket.gethostname()).lower()


def node_addresses(config: Config) -> list[str]:
    return config.words("node-ip") or [default_address()]


async def register(registration: Registration, name: str, addresses: list[str]) -> Obj:
    """Retry until the cluster issues certificates; also after a rejected node password, as upstream."""
    headers = {
        "rke2-Node-Name": name, "rke2-Node-Password": node_password(), "rke2-Node-IP": ",".join(addresses),
    }  # fmt: skip
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


def save_identity(layout: Layout, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = layout.agent / name
        if not path.exists() or path.read_text() != content:
            write(path, content, 0o644 if name.endswith("-ca.crt") else 0o600)


def api_client(layout: Layout, hosts: list[str], port: int = 6443) -> ApiClient:
    """The API with the rights of this node."""
    agent = layout.agent
    return ApiClient(
        agent / "server-ca.crt", agent / "client-kubelet.crt", agent / "client-kubelet.key", hosts, port=port
    )


class NodeProcesses:
    """containerd and the kubelet of a node, from the release's images."""

    def __init__(self, config: Config, layout: Layout, release: Release) -> None:
        self.config, self.layout, self.release = config, layout, release
        self.children: list[Child] = []

    async def start(self, name: str, addresses: list[str], cluster: Obj, tasks: set[asyncio.Task[Any]]) -> None:
        layout = self.layout
        archives.extract_runtime(layout, self.release)
        containerd.configure(self.config, layout, self.release)
        runtime = containerd.child(layout)
        self.children.append(runtime)
        await runtime.start()
        await containerd.wait_ready(runtime)
        background(tasks, "containerd", runtime.keep_running(), essential=True)
        await archives.import_images(layout, containerd.SOCKET)
        process = kubelet.prepare(self.config, layout, name, addresses, cluster)
        self.children.append(process)
        await process.start()
        background(tasks, "kubelet", process.keep_running(), essential=True)

    async def stop(self) -> None:
        for child in reversed(self.children):
            await child.stop()


async def until_stopped() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def run(config: Config, release: Release) -> None:
    layout = Layout(config.data_dir)
    if not config.text("server"):
        raise Fatal("--server is required")
    token = Token.parse(config.secret("token"))
    host_checks(config)
    log.info(f"Starting rke2 agent {release.version} ({release.commit}) - a simulation")
    name, addresses = node_name(config), node_addresses(config)
    registration = Registration(config.text("server"), token, "agent")
    identity = await register(registration, name, addresses)
    save_identity(layout, identity["files"])
    tasks: set[asyncio.Task[Any]] = set()
    balancer = LoadBalancer(layout, registration.url, kubelet.API_PORT)
    balancer.set_hosts(list(identity["servers"]))
    background(tasks, "load balancer", balancer.serve(), essential=True)
    processes = NodeProcesses(config, layout, release)
    await processes.start(name, addresses, identity["cluster"], tasks)
    write_kube_proxy(config, layout, release, name, identity["cluster"])
    api = api_client(layout, ["127.0.0.1"], kubelet.API_PORT)
    await registered(api, name)
    background(tasks, "servers", follow_servers(api, balancer))
    log.info("rke2 agent is up and running")
    notify("READY=1")
    await until_stopped()
    for task in list(tasks):
        task.cancel()
    await processes.stop()


async def registered(api: ApiClient, name: str) -> None:
    """Wait until the kubelet has registered the node."""
    while True:
        try:
            if (await api.call("GET", f"/api/v1/nodes/{name}")).status == 200:
                return
        except (OSError, TimeoutError) as fault:
            log.warning(f"Waiting for the API to register this node: {fault}")
        await asyncio.sleep(RETRY_SECONDS)


async def follow_servers(api: ApiClient, balancer: LoadBalancer) -> None:
    """Keep the servers of the load balancer those of the cluster."""
    while True:
        await asyncio.sleep(SERVERS_SECONDS)
        try:
            answer = await api.call("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
        except (OSError, TimeoutError, ValueError):
            continue  # none answers: retried
        if answer.status == 200:
            subsets = answer.json().get("subsets") or []
            if hosts := [entry["ip"] for subset in subsets for entry in subset["addresses"]]:
                balancer.set_hosts(hosts)
