"""`rke2 server`: etcd, the API, the supervisor port, controllers, and the kubelet."""

from __future__ import annotations

import asyncio
import base64
import grp
import ipaddress
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

import yaml

from . import log, member, tokens
from .addons import Addons
from .agent import NodeProcesses, node_addresses, node_name, registered, save_identity, until_stopped
from .api_client import ApiClient
from .checks import host_checks
from .config import Config, critical_values
from .control_plane import write_apiserver, write_controllers, write_kube_proxy
from .controllers import Nodes, create_definitions
from .etcd import Etcd, EtcdError
from .helm import controller as helm_controller
from .http import Server, background, server_context
from .layout import KUBECONFIG, Layout, Release
from .log import Fatal
from .notify import notify
from .packaged import write_manifests
from .pki import issue, make_ca, openssl, write
from .processes import Child
from .resources import Obj
from .snapshots import Snapshots
from .supervisor import PORT, REJECTED, NodePasswords, Registration, Supervisor, node_certificates, node_password
from .tokens import Token

BOOTSTRAP = "/bootstrap/"
JOIN_RETRY_SECONDS = 2


def make_authorities(layout: Layout, provider: str) -> None:
    stamp = int(time.time())
    for ca in ("server", "client", "request-header"):
        folder = layout.tls
        make_ca(folder / f"{ca}-ca.crt", folder / f"{ca}-ca.key", f"rke2-{ca}-ca@{stamp}")
    for ca in ("server", "peer"):
        folder = layout.etcd_tls
        make_ca(folder / f"{ca}-ca.crt", folder / f"{ca}-ca.key", f"etcd-{ca}-ca@{stamp}")
    if not (layout.tls / "service.key").exists():
        # The API server reads the public half from the key too, which it can only in this form.
        write(layout.tls / "service.key", openssl("genrsa", "-traditional", "2048"))
    if not layout.encryption.exists():
        write(layout.encryption, json.dumps(encryption(provider)))


def encryption(provider: str) -> Obj:
    """A new key for Secrets in etcd, and the rule that uses it."""
    key = {"name": f"{provider}key", "secret": base64.b64encode(secrets.token_bytes(32)).decode()}
    return {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": ["secrets"], "providers": [{provider: {"keys": [key]}}, {"identity": {}}]}],
    }


def first_service_address(config: Config) -> str:
    """The address of the API's own Service."""
    network = ipaddress.ip_network(critical_values(config)["service-cidr"].split(",")[0], strict=False)
    return str(network.network_address + 1)


def issue_certificates(config: Config, layout: Layout, node: str, addresses: list[str]) -> None:
    member.issue_certificates(layout, node, addresses)
    server_ca = layout.tls / "server-ca.crt", layout.tls / "server-ca.key"
    client_ca = layout.tls / "client-ca.crt", layout.tls / "client-ca.key"
    domain = critical_values(config)["cluster-domain"]
    names = [
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}", "localhost",
        node, "127.0.0.1", "::1", first_service_address(config), *addresses, *config.words("node-external-ip"),
        *config.words("tls-san"),
    ]  # fmt: skip
    for name in ("serving-kube-apiserver", "dynamic-cert"):
        issue(server_ca, layout.tls / f"{name}.crt", layout.tls / f"{name}.key", "kube-apiserver", names=names,
              usage="serverAuth")  # fmt: skip
    for name, user, group in (
        ("client-admin", "system:admin", "system:masters"),
        ("client-supervisor", "system:rke2-supervisor", "system:masters"),
        ("client-controller", "system:kube-controller-manager", ""),
        ("client-scheduler", "system:kube-scheduler", ""),
        ("client-kube-apiserver", "system:apiserver", "system:masters"),
    ):
        issue(client_ca, layout.tls / f"{name}.crt", layout.tls / f"{name}.key", user, organization=group)
    proxy_ca = layout.tls / "request-header-ca.crt", layout.tls / "request-header-ca.key"
    issue(proxy_ca, layout.tls / "client-auth-proxy.crt", layout.tls / "client-auth-proxy.key", "system:auth-proxy")


def write_kubeconfig(config: Config, layout: Layout) -> None:
    def data(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    name = "default"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "certificate-authority-data": data(layout.tls / "server-ca.crt"),
                    "server": "https://127.0.0.1:6443",
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": data(layout.tls / "client-admin.crt"),
                    "client-key-data": data(layout.tls / "client-admin.key"),
                },
            }
        ],
    }
    path = Path(config.text("write-kubeconfig") or KUBECONFIG)
    mode = int(config.text("write-kubeconfig-mode") or "600", 8)
    write(path, yaml.safe_dump(document), mode)
    if group := config.text("write-kubeconfig-group"):
        os.chown(path, -1, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)


def bootstrap_key(token: str) -> str:
    return BOOTSTRAP + tokens.short_hash(token)


def read_bootstrap(layout: Layout) -> bytes:
    return json.dumps({name: path.read_text() for name, path in layout.bootstrap_files().items()}).encode()


def write_bootstrap(layout: Layout, files: dict[str, str]) -> None:
    paths = layout.bootstrap_files()
    for name, content in files.items():
        write(paths[name], content, 0o644 if name.endswith(".crt") else 0o600)


class Node:
    """One run of a server, from start to stop."""

    def __init__(self, config: Config, release: Release) -> None:
        self.config = config
        self.release = release
        self.layout = Layout(config.data_dir)
        self.name = node_name(config)
        self.addresses = node_addresses(config)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.token = ""
        self.agent_token = ""
        self.cluster: Obj = {}
        self.helm: Child | None = None

    def _tokens(self, *, joining: bool) -> None:
        """Set the server token: from the settings, else from an earlier start, else a new one (first server only)."""
        token_text = self.config.secret("token")
        if token_text:
            self.token = Token.parse(token_text).password
        elif self.layout.token.exists():
            self.token = Token.parse(self.layout.token.read_text()).password
        elif joining:
            raise Fatal("--token is required to join a cluster")
        else:
            self.token = tokens.generate()
        agent = self.config.secret("agent-token")
        self.agent_token = Token.parse(agent).password if agent else self.token
        self.cluster["critical"] = {
            **critical_values(self.config),
            "agent-token": tokens.short_hash(agent and self.agent_token),
        }

    def _write_tokens(self) -> None:
        digest = tokens.ca_hash((self.layout.tls / "server-ca.crt").read_bytes())
        write(self.layout.token, Token(self.token).format(digest, tokens.SERVER_USER) + "\n")
        agent = Token(self.agent_token).format(digest, tokens.AGENT_USER) + "\n"
        write(self.layout.server / "agent-token", agent)
        link = self.layout.server / "node-token"
        if not link.is_symlink():
            link.symlink_to(self.layout.token)

    async def _join(self) -> list[Obj]:
        """Fetch the cluster's CAs with the server token; returns the etcd members to join."""
        registration = Registration(self.config.text("server"), Token.parse(self.config.secret("token")), "server")
        while True:
            try:
                files = await registration.request("/v1-rke2/server-bootstrap")
                cluster = await registration.request("/v1-rke2/config")
                members: list[Obj] = (await registration.request("/db/info"))["members"]
                break
            except (OSError, TimeoutError, ValueError) as fault:
                reason = str(fault) or type(fault).__name__
                log.info(f"Waiting for {registration.url} to accept a new server: {reason}")
                await asyncio.sleep(JOIN_RETRY_SECONDS)
        cluster_critical, own = cluster["critical"], self.cluster["critical"]
        different = [key for key in own if cluster_critical.get(key) != own[key]]
        if different:
            for key in different:
                shown = "" if "token" in key else f": {own[key]!r} here, {cluster_critical.get(key)!r} on the servers"
                log.error(f"critical configuration mismatched: --{key}{shown}")
            raise Fatal(
                "failed to validate server configuration: critical configuration value mismatch between servers: "
                + ", ".join(different)
            )
        write_bootstrap(self.layout, files)
        return members

    async def _check_bootstrap(self, etcd: Etcd) -> None:
        """Verify that the token decrypts the bootstrap data; the first server stores the data."""
        pairs, _, _ = await etcd.range(BOOTSTRAP)
        if not pairs:
            await etcd.put(bootstrap_key(self.token), tokens.seal(self.token, read_bootstrap(self.layout)))
            return
        mine = [pair for pair in pairs if pair.key == bootstrap_key(self.token)]
        if not mine or tokens.unseal(self.token, mine[0].value) is None:
            raise Fatal("bootstrap data already found and encrypted with different token")

    async def run(self) -> None:
        config, layout = self.config, self.layout
        host_checks(config)
        log.info(f"Starting rke2 {self.release.version} ({self.release.commit}) - a simulation with real Kubernetes")
        for folder in (layout.server, layout.images, layout.manifests, layout.server / "logs", layout.pod_manifests):
            folder.mkdir(parents=True, exist_ok=True)
        layout.etcd_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        initialized = (layout.etcd_dir / "member" / "wal").is_dir()
        joining = bool(config.text("server")) and not initialized
        self._tokens(joining=joining)
        members: list[Obj] = []
        if joining:
            members = await self._join()
        else:
            make_authorities(layout, config.text("secrets-encryption-provider") or "aescbc")
        issue_certificates(config, layout, self.name, self.addresses)
        self._write_tokens()
        write_kubeconfig(config, layout)
        supervisor = Supervisor(layout, self.token, self.agent_token, self.cluster)
        front = Server(supervisor.handle)
        await front.listen(PORT, server_context(layout.tls / "dynamic-cert.crt", layout.tls / "dynamic-cert.key"))
        # Pods of an earlier start: kube-proxy's goes as in RKE2; without etcd's data all others are another cluster's.
        for path in layout.pod_manifests.glob("*.yaml"):
            if path.stem == "kube-proxy" or not initialized:
                path.unlink()
        files = node_certificates(layout, self.name, self.addresses)
        save_identity(layout, files)
        processes = NodeProcesses(config, layout, self.release)
        await processes.start(self.name, self.addresses, self.cluster, self.tasks)
        etcd = member.Member(config, layout, self.name, self.addresses[0])
        if initialized:
            await etcd.start_again(self.release)
        elif joining:
            await etcd.start_joining(self.release, members)
        else:
            await etcd.start_first(self.release)
        layout.reset_flag.unlink(missing_ok=True)
        await self._check_bootstrap(etcd.local)
        await self._start_control_plane(supervisor, etcd)
        log.info("rke2 is up and running")
        notify("READY=1")
        await until_stopped()
        log.info("Stopping; the pods keep running (rke2-killall.sh stops them)")
        for task in list(self.tasks):
            task.cancel()
        if self.helm is not None:
            await self.helm.stop()
        await processes.stop()
        await front.close()

    async def _start_control_plane(self, supervisor: Supervisor, etcd: member.Member) -> None:
        config, layout = self.config, self.layout
        await write_apiserver(config, layout, self.release, self.addresses[0])
        tls = layout.tls
        api = ApiClient(
            tls / "server-ca.crt", tls / "client-supervisor.crt", tls / "client-supervisor.key", ["127.0.0.1"]
        )
        await api_ready(api)
        write_controllers(config, layout, self.release)
        write_kube_proxy(config, layout, self.release, self.name, self.cluster)
        await create_definitions(api)
        passwords = NodePasswords(api)
        while not await passwords.ensure(self.name, node_password()):
            log.error(f"node {self.name}: {REJECTED}")
            await asyncio.sleep(JOIN_RETRY_SECONDS)

        async def server_addresses() -> list[str]:
            answer = await api.call("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
            subsets = (answer.json() if answer.status == 200 else {}).get("subsets") or []
            known = [entry["ip"] for subset in subsets for entry in subset["addresses"]]
            return known or [self.addresses[0]]

        supervisor.etcd, supervisor.passwords = etcd.local, passwords
        supervisor.server_addresses = server_addresses
        await registered(api, self.name)
        nodes = Nodes(config, layout, self.name, self.addresses, api, etcd.local, lambda: etcd.is_voter)
        background(self.tasks, "nodes", nodes.run(), essential=True)
        self.helm = helm_controller(config, layout, self.release, self.name)
        background(self.tasks, "helm-controller", self.helm.keep_running(), essential=True)
        write_manifests(config, layout, self.release)
        background(self.tasks, "manifests", Addons(config, layout, api).run(), essential=True)
        background(self.tasks, "snapshots", Snapshots(config, layout, self.name).run(), essential=True)


async def api_ready(api: ApiClient) -> None:
    """Wait without a limit until this server's own API is ready (the unit has no start timeout)."""
    waited = 0
    while True:
        try:
            answer = await api.call("GET", "/readyz")
            if answer.status == 200:
                log.info("Kube API server is now running")
                return
            reason = f"status {answer.status}"
        except (OSError, TimeoutError) as fault:
            reason = str(fault)
        waited += 1
        if waited % 20 == 0:
            log.info(f"Waiting for the API server to become available: {reason}")
        await asyncio.sleep(0.5)


async def run(config: Config, release: Release) -> None:
    try:
        await Node(config, release).run()
    except EtcdError as fault:
        raise Fatal(f"etcd: {fault}") from fault
