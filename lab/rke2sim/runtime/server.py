"""`rke2 server`: etcd, the API, the supervisor port, controllers, and the kubelet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import grp
import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import yaml

from . import log, member, tokens
from .addons import Addons, packaged
from .agent import node_addresses, node_name, register, save_identity
from .api import Api
from .api_client import ApiClient
from .audit import Audit
from .checks import host_checks
from .config import Config, critical_values
from .controllers import Controllers
from .etcd import EtcdError
from .http import Server, background, server_context
from .kubelet import Kubelet
from .layout import KUBECONFIG, Layout, Release
from .log import Fatal
from .notify import notify
from .pki import issue, make_ca, new_key, write
from .resources import Catalogue, Obj
from .snapshots import Snapshots
from .store import ApiError, Store
from .supervisor import PORT, NodePasswords, Registration, Supervisor, node_password
from .tokens import Token

BOOTSTRAP = "/bootstrap/"
JOIN_RETRY_SECONDS = 2


def make_authorities(layout: Layout) -> None:
    stamp = int(time.time())
    for ca in ("server", "client", "request-header"):
        folder = layout.tls
        make_ca(folder / f"{ca}-ca.crt", folder / f"{ca}-ca.key", f"rke2-{ca}-ca@{stamp}")
    for ca in ("server", "peer"):
        folder = layout.etcd_tls
        make_ca(folder / f"{ca}-ca.crt", folder / f"{ca}-ca.key", f"etcd-{ca}-ca@{stamp}")
    if not (layout.tls / "service.key").exists():
        write(layout.tls / "service.key", new_key())
    if not layout.encryption.exists():
        write(layout.encryption, json.dumps({"key": secrets.token_hex(32)}))


def issue_certificates(config: Config, layout: Layout, node: str, addresses: list[str]) -> None:
    member.issue_certificates(layout, node, addresses)
    server_ca = layout.tls / "server-ca.crt", layout.tls / "server-ca.key"
    client_ca = layout.tls / "client-ca.crt", layout.tls / "client-ca.key"
    domain = critical_values(config)["cluster-domain"]
    names = [
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}", "localhost",
        node, "127.0.0.1", "::1", "10.43.0.1", *addresses, *config.words("node-external-ip"), *config.words("tls-san"),
    ]  # fmt: skip
    for name in ("serving-kube-apiserver", "dynamic-cert"):
        issue(server_ca, layout.tls / f"{name}.crt", layout.tls / f"{name}.key", "kube-apiserver", names=names,
              usage="serverAuth")  # fmt: skip
    for name, user, group in (
        ("client-admin", "system:admin", "system:masters"),
        ("client-supervisor", "system:rke2-supervisor", "system:masters"),
        ("client-controller", "system:kube-controller-manager", "system:masters"),
        ("client-scheduler", "system:kube-scheduler", "system:masters"),
    ):
        issue(client_ca, layout.tls / f"{name}.crt", layout.tls / f"{name}.key", user, organization=group)


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
        ingress = config.words("ingress-controller") or ["traefik"]
        self.cluster: Obj = {"cni": config.words("cni") or ["canal"], "ingress": ingress}

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

    async def _check_bootstrap(self, store: Any) -> None:
        """Verify that the token decrypts the bootstrap data; the first server stores the data."""
        etcd = store.etcd
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
        log.info(f"Starting rke2 {self.release.version} ({self.release.commit}) - a simulation")
        for folder in (layout.server, layout.agent / "images", layout.agent / "etc", layout.manifests):
            folder.mkdir(parents=True, exist_ok=True)
        layout.etcd_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        initialized = (layout.etcd_dir / "member" / "wal").is_dir()
        joining = bool(config.text("server")) and not initialized
        self._tokens(joining=joining)
        members: list[Obj] = []
        if joining:
            members = await self._join()
        else:
            make_authorities(layout)
        issue_certificates(config, layout, self.name, self.addresses)
        self._write_tokens()
        write_kubeconfig(config, layout)
        supervisor = Supervisor(layout, self.token, self.agent_token, self.cluster)
        front = Server(supervisor.handle)
        await front.listen(PORT, server_context(layout.tls / "dynamic-cert.crt", layout.tls / "dynamic-cert.key"))
        etcd = member.Member(config, layout, self.name, self.addresses[0])
        if initialized:
            await etcd.start_again()
        elif joining:
            await etcd.start_joining(members)
        else:
            await etcd.start_first()
        background(self.tasks, "etcd", etcd.keep_running(), essential=True)
        layout.reset_flag.unlink(missing_ok=True)
        secret_key = json.loads(layout.encryption.read_text())["key"]
        catalogue = Catalogue()
        provider = config.text("secrets-encryption-provider") or "aescbc"
        store = Store(etcd.local, catalogue, secret_key, provider)
        await self._check_bootstrap(store)
        api = Api(store, catalogue, self.release.version, self.addresses[0])
        api.audit = Audit.of(config, layout)
        background(self.tasks, "watch cache", store.follow(), essential=True)
        await store.synced.wait()
        await first_objects(api, catalogue)
        api_server = Server(api.handle)
        await api_server.listen(
            6443,
            server_context(
                layout.tls / "serving-kube-apiserver.crt",
                layout.tls / "serving-kube-apiserver.key",
                layout.tls / "client-ca.crt",
            ),
        )
        passwords = NodePasswords(store, catalogue)

        async def server_addresses() -> list[str]:
            endpoints = catalogue.find("", "v1", "endpoints")
            assert endpoints is not None
            found = await store.find(endpoints, "default", "kubernetes")
            subsets = (found or {}).get("subsets") or []
            known = [entry["ip"] for subset in subsets for entry in subset["addresses"]]
            return known or [self.addresses[0]]

        supervisor.etcd, supervisor.passwords = etcd.local, passwords
        supervisor.server_addresses = server_addresses
        await self._start_node(etcd, api)
        controllers = Controllers(config, store, api, self.name)
        background(self.tasks, "controllers", controllers.run(), essential=True)
        addons = Addons(config, layout, api)
        packaged(config, layout)
        background(self.tasks, "manifests", addons.run(), essential=True)
        snapshots = Snapshots(config, layout, self.name)
        background(self.tasks, "snapshots", snapshots.run(), essential=True)
        log.info("rke2 is up and running")
        notify("READY=1")
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        log.info("Stopping; etcd and the ingress keep running (rke2-killall.sh stops them)")
        api.stopping.set()
        await asyncio.sleep(0.2)
        for task in list(self.tasks):
            task.cancel()
        await front.close()
        await api_server.close()

    async def _start_node(self, etcd: member.Member, api: Api) -> None:
        """Start the kubelet of this server, authenticated by node password as on every node."""
        url = f"https://127.0.0.1:{PORT}"
        registration = Registration(url, Token(self.token, tokens.SERVER_USER), "server")
        node_password()
        identity = await register(registration, self.name)
        paths = save_identity(self.layout, identity, registration.ca)
        kubelet = Kubelet(
            self.config, self.layout, self.release, self.name, self.addresses, ApiClient(*paths, ["127.0.0.1"]),
            cluster=self.cluster,
        )  # fmt: skip
        kubelet.voter = lambda: etcd.is_voter
        await kubelet.start(self.tasks)


async def first_objects(api: Api, catalogue: Catalogue) -> None:
    """Create the initial objects of a cluster."""
    wanted: list[tuple[str, str, str, Obj]] = [
        ("", "namespaces", "", {"metadata": {"name": name}})
        for name in ("default", "kube-system", "kube-public", "kube-node-lease")
    ]
    wanted.append(
        (
            "", "services", "default",
            {
                "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {
                    "type": "ClusterIP", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
                },
            },
        )
    )  # fmt: skip
    for name in ("default", "kube-system"):
        wanted.append(("", "serviceaccounts", name, {"metadata": {"name": "default"}}))
    for name, value in (("system-cluster-critical", 2000000000), ("system-node-critical", 2000001000)):
        wanted.append(("scheduling.k8s.io", "priorityclasses", "", {"metadata": {"name": name}, "value": value}))
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    admin = {"metadata": {"name": "cluster-admin"}, "rules": rules}
    wanted.append(("rbac.authorization.k8s.io", "clusterroles", "", admin))
    for group, plural, namespace, item in wanted:
        resource = catalogue.find(group, "v1", plural)
        assert resource is not None
        if resource.key(namespace, item["metadata"]["name"]) not in api.store.objects:
            with contextlib.suppress(ApiError):
                await api.create(resource, namespace, item)


async def run(config: Config, release: Release) -> None:
    try:
        await Node(config, release).run()
    except EtcdError as fault:
        raise Fatal(f"etcd: {fault}") from fault
