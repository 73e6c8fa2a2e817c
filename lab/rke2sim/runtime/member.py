"""The etcd member of this server: certificates, config file, bootstrap and join."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from . import log
from .config import Config
from .etcd import Etcd, EtcdError
from .http import Client, client_context
from .layout import Layout, Release
from .log import Fatal
from .pki import issue, write
from .processes import find
from .resources import Obj
from .staticpods import LIVENESS, STARTUP, StaticPod, probe

ADD_TIMEOUT_SECONDS = 20
CLIENT_PORT, PEER_PORT, METRICS_PORT = 2379, 2380, 2381


def issue_certificates(layout: Layout, node: str, addresses: list[str]) -> None:
    server_ca = layout.etcd_tls / "server-ca.crt", layout.etcd_tls / "server-ca.key"
    peer_ca = layout.etcd_tls / "peer-ca.crt", layout.etcd_tls / "peer-ca.key"
    names = ["localhost", "127.0.0.1", "::1", node, *addresses]
    both = "serverAuth,clientAuth"
    folder = layout.etcd_tls
    issue(server_ca, folder / "server-client.crt", folder / "server-client.key", "etcd-server", names=names, usage=both)
    issue(server_ca, folder / "client.crt", folder / "client.key", "etcd-client")
    peer = folder / "peer-server-client"
    issue(peer_ca, peer.with_suffix(".crt"), peer.with_suffix(".key"), "etcd-peer", names=names, usage=both)


def client(layout: Layout, host: str = "127.0.0.1", port: int = CLIENT_PORT) -> Etcd:
    tls = layout.etcd_tls
    context = client_context(tls / "server-ca.crt", tls / "client.crt", tls / "client.key")
    return Etcd(Client(host, port, context))


class EtcdProcess:
    """etcd's process in its pod, which outlives `rke2`."""

    def __init__(self, config_file: Path) -> None:
        self.command = ["etcd", f"--config-file={config_file}"]

    def running_pid(self) -> int:
        return find(*self.command)


class Member:
    def __init__(self, config: Config, layout: Layout, node: str, address: str) -> None:
        self.config = config
        self.layout = layout
        self.node = node
        self.address = address
        self.config_file = layout.etcd_dir / "config"
        self.process = EtcdProcess(self.config_file)
        self.local = client(layout)
        self.is_voter = False

    @property
    def peer_url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{PEER_PORT}"

    @property
    def initialized(self) -> bool:
        return (self.layout.etcd_dir / "member" / "wal").is_dir()

    def name(self) -> str:
        """`<node>-<8 hex>`, generated once and stored: a wiped server joins under another name."""
        path = self.layout.etcd_name
        if not path.exists():
            write(path, f"{self.node}-{secrets.token_hex(4)}")
        return path.read_text().strip()

    def write_config(self, initial_cluster: str, state: str) -> None:
        url = self.peer_url.removesuffix(str(PEER_PORT))
        tls = self.layout.etcd_tls
        metrics = [f"http://127.0.0.1:{METRICS_PORT}"]
        if self.config.flag("etcd-expose-metrics"):
            metrics.append(f"http://{url.removeprefix('https://')}{METRICS_PORT}")
        settings: dict[str, Any] = {
            "name": self.name(),
            "data-dir": str(self.layout.etcd_dir),
            "listen-client-urls": f"https://127.0.0.1:{CLIENT_PORT},{url}{CLIENT_PORT}",
            "listen-peer-urls": f"https://127.0.0.1:{PEER_PORT},{self.peer_url}",
            "listen-metrics-urls": ",".join(metrics),
            "advertise-client-urls": f"{url}{CLIENT_PORT}",
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": initial_cluster,
            "initial-cluster-state": state,
            "client-transport-security": {
                "cert-file": str(tls / "server-client.crt"),
                "key-file": str(tls / "server-client.key"),
                "client-cert-auth": True,
                "trusted-ca-file": str(tls / "server-ca.crt"),
            },
            "peer-transport-security": {
                "cert-file": str(tls / "peer-server-client.crt"),
                "key-file": str(tls / "peer-server-client.key"),
                "client-cert-auth": True,
                "trusted-ca-file": str(tls / "peer-ca.crt"),
            },
            "snapshot-count": 10000,
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "10m",
            "strict-reconfig-check": True,
            "enable-grpc-gateway": True,
            "logger": "zap",
            "log-outputs": ["stderr"],
            "log-level": "warn",
        }
        for argument in self.config.items("etcd-arg"):
            key, _, value = argument.removeprefix("--").partition("=")
            settings[key] = yaml.safe_load(value) if value else True
        write(self.config_file, yaml.safe_dump(settings, sort_keys=False))

    async def write_pod(self, release: Release) -> None:
        """Write etcd's static pod and wait for it. Only settings of the first start may change without a restart."""
        lasting = {
            key: value
            for key, value in yaml.safe_load(self.config_file.read_text()).items()
            if not key.startswith("initial-cluster")
        }
        tls = self.layout.etcd_tls
        pod = StaticPod("etcd", self.layout, release)
        pod.write(
            self.process.command,
            folders=[self.layout.etcd_dir, tls],
            watched=[tls / "server-client.crt", tls / "peer-server-client.crt"],
            settings=lasting,
            probes={
                "startupProbe": probe(METRICS_PORT, "/health?serializable=true", "HTTP", **STARTUP),
                "livenessProbe": probe(METRICS_PORT, "/health?serializable=true", "HTTP", **LIVENESS),
            },
            security=self.own_files(),
        )
        await pod.wait_replaced()

    def own_files(self) -> Obj:
        """With the CIS profile etcd runs as its own user, which owns its files; else as root."""
        if self.config.text("profile") not in ("cis", "etcd"):
            return {}
        user = pwd.getpwnam("etcd")
        for folder in (self.layout.etcd_dir, self.layout.etcd_tls):
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        return {"runAsUser": user.pw_uid, "runAsGroup": user.pw_gid}

    async def start_first(self, release: Release) -> None:
        log.info("Starting etcd for new cluster")
        self.write_config(f"{self.name()}={self.peer_url}", "new")
        await self.write_pod(release)
        await self.wait_healthy()
        self.is_voter = True

    async def start_again(self, release: Release) -> None:
        """Start on existing data; an interrupted join continues with the promotion."""
        log.info("etcd data exists, starting etcd")
        cluster = f"{self.name()}={self.peer_url}"
        if self.config_file.exists():
            cluster = (yaml.safe_load(self.config_file.read_text()) or {}).get("initial-cluster", cluster)
        self.write_config(cluster, "existing")
        await self.write_pod(release)
        urls = [entry.partition("=")[2] for entry in cluster.split(",")]
        await self.promote([urlsplit(url).hostname or "" for url in urls if url != self.peer_url])
        await self.wait_healthy()

    async def start_joining(self, release: Release, members: list[dict[str, Any]]) -> None:
        """Add this member as a learner, start etcd, and promote the member to a voter when it is in sync."""
        hosts = [urlsplit(url).hostname or "" for member in members for url in member.get("clientURLs") or []]
        cluster = await self._add(hosts)
        log.info(f"Adding member {self.name()} to etcd cluster {cluster}")
        self.write_config(cluster, "existing")
        await self.write_pod(release)
        await self.promote(hosts)
        await self.wait_healthy()

    async def _any(self, hosts: list[str]) -> Etcd:
        for host in hosts:
            etcd = client(self.layout, host)
            try:
                await etcd.members(linearizable=True)
            except EtcdError as fault:
                log.warning(f"etcd at {host}: {fault}")
                continue
            return etcd
        raise Fatal(f"failed to reach an etcd member with quorum at {', '.join(hosts)}")

    async def _add(self, hosts: list[str]) -> str:
        etcd = await self._any(hosts)
        name = self.name()
        cluster: list[str] = []
        added = False
        for member in await etcd.members(linearizable=True):
            urls = member.get("peerURLs") or []
            member_name = member.get("name", "")
            if not member_name and self.peer_url in urls:
                member_name = name  # Added by an earlier, interrupted join of this member.
            added = added or member_name == name
            if member_name != name and member_name.rpartition("-")[0] == self.node:
                self.layout.etcd_name.unlink(missing_ok=True)
                raise Fatal("duplicate node name found, please use a unique name for this node")
            cluster += [f"{member_name}={url}" for url in urls if member_name]
        if not added:
            await self._add_learner(etcd)
            cluster.append(f"{name}={self.peer_url}")
        return ",".join(cluster)

    async def _add_learner(self, etcd: Etcd) -> None:
        """Add a learner, with retries: etcd accepts one at a time, and only when all members have been connected."""
        deadline = asyncio.get_running_loop().time() + ADD_TIMEOUT_SECONDS
        while True:
            try:
                await etcd.add_learner(self.peer_url)
                return
            except EtcdError as fault:
                waiting = any(word in str(fault) for word in ("unhealthy cluster", "too many learner"))
                if not waiting or asyncio.get_running_loop().time() > deadline:
                    raise Fatal(f"failed to add this server to the etcd cluster: {fault}") from fault
                await asyncio.sleep(0.5)

    async def promote(self, others: list[str]) -> None:
        """Promote this member through a voter, with retries until it succeeds; a voter is left unchanged."""
        while True:
            try:
                status = await self.local.status()
                if not status.get("isLearner"):
                    self.is_voter = True
                    return
                await (await self._any(others)).promote(str(status["header"]["member_id"]))
                log.info(f"Promoted {self.name()} to voting member of the etcd cluster")
                self.is_voter = True
                return
            except EtcdError as fault:
                if "in sync" not in str(fault) and not fault.transient:
                    log.warning(f"cannot promote this member yet: {fault}")
            except Fatal as fault:
                log.warning(str(fault))
            await asyncio.sleep(0.3)

    async def wait_healthy(self) -> None:
        """Wait without a limit until a linearizable read succeeds (the unit has no start timeout)."""
        waited = 0
        while True:
            try:
                await self.local.call("kv/range", {"key": "MA=="}, timeout=5)
                log.info("Connection to etcd is ready")
                return
            except EtcdError as fault:
                waited += 1
                if waited % 15 == 0:
                    log.info(f"Waiting for etcd to have a leader: {fault}")
                await asyncio.sleep(0.3)
