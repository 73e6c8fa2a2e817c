"""`rke2 server --cluster-reset`: reset etcd to one member, on the existing data or on a snapshot."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

from . import log, tokens
from .agent import node_addresses, node_name
from .config import Config
from .etcd import Etcd, EtcdError
from .http import Client
from .layout import Layout, Release
from .log import Fatal
from .member import Member
from .pki import write
from .s3 import Bucket, S3Error
from .server import BOOTSTRAP, bootstrap_key, write_bootstrap
from .snapshots import Snapshots, unpack
from .tokens import Token

CLIENT_PORT, PEER_PORT = 2399, 2400
START_SECONDS = 30


def _fetch(config: Config, path: str) -> bytes:
    """The snapshot's bytes: an S3 object by name if S3 is enabled, else a file by its path."""
    if config.flag("etcd-s3"):
        try:
            content = Bucket(config).get(Path(path).name)
        except S3Error as fault:
            raise Fatal(f"failed to download snapshot from S3: {fault}") from fault
    else:
        if not Path(path).is_file():
            raise Fatal(f"etcd: snapshot path does not exist: {path}")
        content = Path(path).read_bytes()
    if not content:
        raise Fatal(f"the snapshot {path} is empty")
    return unpack(content)


def _restore(layout: Layout, member: Member, content: bytes) -> None:
    """Restore the snapshot to a new data directory; the previous data directory is renamed and kept."""
    part = layout.db / ".restore"
    write(part, content)
    old = layout.db / f"etcd-old-{int(time.time())}"
    fresh = layout.db / ".etcd-restored"
    shutil.rmtree(fresh, ignore_errors=True)
    name = member.name()
    done = subprocess.run(
        ["etcdctl", "snapshot", "restore", str(part), "--name", name, "--data-dir", str(fresh),
         "--initial-cluster", f"{name}={member.peer_url}", "--initial-advertise-peer-urls", member.peer_url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    part.unlink()
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise Fatal(f"failed to restore the snapshot: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    if layout.etcd_dir.exists():
        layout.etcd_dir.rename(old)
        log.info(f"Moved the old etcd data to {old}")
    fresh.rename(layout.etcd_dir)
    write(layout.etcd_name, name)


async def _temporary(layout: Layout, member: Member) -> tuple[Etcd, asyncio.subprocess.Process]:
    """Start etcd on loopback without TLS, with --force-new-cluster."""
    url, peer = f"http://127.0.0.1:{CLIENT_PORT}", f"http://127.0.0.1:{PEER_PORT}"
    process = await asyncio.create_subprocess_exec(
        str(layout.bin / "etcd"), "--name", member.name(), "--data-dir", str(layout.etcd_dir), "--force-new-cluster",
        "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
        "--log-level", "error",
    )  # fmt: skip
    etcd = Etcd(Client("127.0.0.1", CLIENT_PORT, None))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await etcd.call("kv/range", {"key": "MA=="}, timeout=3)
            return etcd, process
        except EtcdError as fault:
            if process.returncode is not None or time.monotonic() > deadline:
                if process.returncode is None:
                    process.kill()
                raise Fatal(f"etcd did not start on the data to reset: {fault}") from fault
            await asyncio.sleep(0.2)


async def _adopt(layout: Layout, etcd: Etcd, member: Member, token: str) -> None:
    """Decrypt the cluster's CAs with the token, and set the address of the only member to this server's."""
    pairs, _, _ = await etcd.range(BOOTSTRAP)
    mine = [pair for pair in pairs if pair.key == bootstrap_key(token)]
    opened = tokens.unseal(token, mine[0].value) if mine else None
    if opened is None:
        raise Fatal(
            "failed to reconcile bootstrap data: bootstrap data already found and encrypted with different token"
        )
    write_bootstrap(layout, json.loads(opened))
    for item in await etcd.members():
        if item.get("name") == member.name():
            if item.get("peerURLs") != [member.peer_url]:
                await etcd.update_peer(item["ID"], member.peer_url)
        else:
            await etcd.remove(item["ID"])


async def run(config: Config, release: Release) -> int:
    layout = Layout(config.data_dir)
    log.info(f"Starting rke2 {release.version} ({release.commit}) - a simulation")
    if config.text("server"):
        raise Fatal(
            "cannot perform cluster-reset while server URL is set - remove server from configuration before resetting"
        )
    if layout.reset_flag.exists():
        raise Fatal(
            "cluster-reset was successfully performed, please remove the cluster-reset flag and start rke2 normally, "
            f"if you need to perform another cluster reset, you must first manually delete the {layout.reset_flag} file"
        )
    token_text = config.secret("token") or (layout.token.read_text() if layout.token.exists() else "")
    token = Token.parse(token_text).password if token_text else ""
    path = config.text("cluster-reset-restore-path")
    member = Member(config, layout, node_name(config), node_addresses(config)[0])
    if pid := member.process.running_pid():
        raise Fatal(f"etcd still runs as process {pid}: stop it with rke2-killall.sh before a cluster reset")
    layout.db.mkdir(parents=True, exist_ok=True)
    if path:
        if not token:
            raise Fatal("--token is required to restore a snapshot: it decrypts the bootstrap data in it")
        _restore(layout, member, _fetch(config, path))
    elif not member.initialized:
        raise Fatal("cluster-reset needs etcd data on this server, or --cluster-reset-restore-path with a snapshot")
    etcd, process = await _temporary(layout, member)
    try:
        await _adopt(layout, etcd, member, token)
    finally:
        process.terminate()
        await process.wait()
    write(layout.reset_flag, "")
    Snapshots(config, layout, member.node).folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.info(
        "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. "
        "Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes"
    )
    return 0
