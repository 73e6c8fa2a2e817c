"""etcd snapshots: by schedule and by command, on disk and in S3, listed as ETCDSnapshotFile objects."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from . import config as settings
from . import log, tokens
from .agent import node_name
from .api_client import ApiClient
from .config import Config
from .layout import Layout
from .log import Fatal
from .pki import write
from .resources import Obj
from .s3 import DEFAULT_RETENTION, Bucket, S3Error
from .tokens import Token

DEFAULT_CRON = "0 */12 * * *"
RECONCILE_SECONDS = 600
FILES = "/apis/k3s.cattle.io/v1/etcdsnapshotfiles"
TOKEN_HASH = "etcd.rke2.cattle.io/snapshot-token-hash"
METADATA_DIR = ".metadata"


def cron_matches(expression: str, moment: datetime) -> bool:
    """Five fields with `*`, numbers, ranges, lists and steps; day of month and day of week combine as in cron."""
    fields = expression.split()
    if len(fields) != 5:
        raise Fatal(f"invalid etcd-snapshot-schedule-cron {expression!r}: five fields are expected")
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    parts = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    hits = [
        value in _cron_values(field, low, high) or (index == 4 and value == 0 and 7 in _cron_values(field, low, high))
        for index, (field, (low, high), value) in enumerate(zip(fields, limits, parts, strict=True))
    ]
    days = hits[2] or hits[4] if fields[2] != "*" and fields[4] != "*" else hits[2] and hits[4]
    return hits[0] and hits[1] and hits[3] and days


def _cron_values(field: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        try:
            if span == "*":
                first, last = low, high
            else:
                first_text, _, end = span.partition("-")
                first = int(first_text)
                last = int(end) if end else (high if step else first)
            if not low <= first <= last <= high:
                raise ValueError(part)
            values.update(range(first, last + 1, int(step or 1)))
        except ValueError as fault:
            raise Fatal(f"invalid etcd-snapshot-schedule-cron: {part!r} does not fit {low} to {high}") from fault
    return values


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    location: str
    node: str
    """The node that has the file, or `s3`."""
    size: int
    created: datetime
    token_hash: str = ""
    error: str = ""

    @property
    def object_name(self) -> str:
        where = "s3" if self.node == "s3" else "local"
        mark = hashlib.sha256(f"{self.node}{self.location}".encode()).hexdigest()[:6]
        return f"{where}-{self.name}-{mark}".lower().replace("_", "-")

    def as_object(self, config: Config) -> Obj:
        stamp = self.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        spec: Obj = {"snapshotName": self.name, "nodeName": self.node, "location": self.location}
        if self.node == "s3":
            spec["s3"] = {
                "endpoint": config.text("etcd-s3-endpoint"),
                "bucket": config.text("etcd-s3-bucket"),
                "region": config.text("etcd-s3-region"),
                "prefix": config.text("etcd-s3-folder"),
            }
        status: Obj = {"creationTime": stamp, "size": str(self.size), "readyToUse": not self.error}
        if self.error:
            status["error"] = {"time": stamp, "message": self.error}
        return {
            "apiVersion": "k3s.cattle.io/v1",
            "kind": "ETCDSnapshotFile",
            "metadata": {"name": self.object_name, "annotations": {TOKEN_HASH: self.token_hash}},
            "spec": spec,
            "status": status,
        }


class Snapshots:
    def __init__(self, config: Config, layout: Layout, node: str) -> None:
        self.config = config
        self.layout = layout
        self.node = node
        self.folder = Path(config.text("etcd-snapshot-dir") or layout.db / "snapshots")

    def _bucket(self) -> Bucket | None:
        return Bucket(self.config) if self.config.flag("etcd-s3") else None

    def _token_hash(self) -> str:
        if not self.layout.token.exists():
            return ""
        return tokens.short_hash(Token.parse(self.layout.token.read_text()).password)

    # Listing

    def local(self) -> list[Snapshot]:
        found = []
        for path in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            if not path.is_file() or path.name.startswith("."):
                continue
            stat = path.stat()
            mark = self.folder / METADATA_DIR / path.name
            digest = mark.read_text() if mark.exists() else ""
            created = datetime.fromtimestamp(int(stat.st_mtime), UTC)
            found.append(Snapshot(path.name, f"file://{path}", self.node, stat.st_size, created, digest))
        return found

    def remote(self) -> list[Snapshot]:
        bucket = self._bucket()
        if bucket is None:
            return []
        return [
            Snapshot(item.name, bucket.location(item.name), "s3", item.size, item.modified) for item in bucket.list()
        ]

    # Creation and retention

    def take(self, name: str) -> list[Snapshot]:
        """Save a snapshot to disk and, if configured, to S3. A failed upload is logged only."""
        stamp = int(time.time())
        full = f"{name}-{self.node}-{stamp}"
        if not self.config.text("etcd-snapshot-dir"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not self.folder.is_dir():
            raise Fatal(f"failed to get etcd-snapshot-dir: stat {self.folder}: no such file or directory")
        tls = self.layout.etcd_tls
        path = self.folder / full
        part = self.folder / f".{full}.part"
        done = subprocess.run(
            ["etcdctl", "--endpoints=https://127.0.0.1:2379", f"--cacert={tls / 'server-ca.crt'}",
             f"--cert={tls / 'client.crt'}", f"--key={tls / 'client.key'}", "snapshot", "save", str(part)],
            capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"},
        )  # fmt: skip
        if done.returncode != 0:
            part.unlink(missing_ok=True)
            raise Fatal(f"failed to take etcd snapshot: {done.stderr.strip().splitlines()[-1]}")
        if self.config.flag("etcd-snapshot-compress"):
            path = self.folder / f"{full}.zip"
            with zipfile.ZipFile(part.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(part, full)
            part.unlink()
            part.with_suffix(".zip").rename(path)
        else:
            part.rename(path)
        path.chmod(0o600)
        digest = self._token_hash()
        write(self.folder / METADATA_DIR / path.name, digest)
        created = datetime.fromtimestamp(stamp, UTC)
        log.info(f"Saved etcd snapshot {path}")
        taken = [Snapshot(path.name, f"file://{path}", self.node, path.stat().st_size, created, digest)]
        if self.config.flag("etcd-s3"):
            taken.append(self._upload(path, created, digest))
        return taken

    def _upload(self, path: Path, created: datetime, digest: str) -> Snapshot:
        location = f"s3://{self.config.text('etcd-s3-bucket')}/{path.name}"
        try:
            bucket = Bucket(self.config)
            location = bucket.location(path.name)
            bucket.put(path.name, path.read_bytes(), {"cluster-node": self.node, "token-hash": digest})
        except S3Error as fault:
            log.error(f"Error received during snapshot upload to S3: {fault}")
            return Snapshot(path.name, location, "s3", 0, created, digest, str(fault))
        log.info(f"S3 upload complete for {path.name}")
        return Snapshot(path.name, location, "s3", path.stat().st_size, created, digest)

    def prune(self, name: str) -> list[str]:
        """Apply the retention: delete this node's oldest snapshots with that name, on disk and in S3."""
        prefix = f"{name}-{self.node}-"
        removed: list[str] = []
        kept_count = self.config.number("etcd-snapshot-retention", DEFAULT_RETENTION)
        own = sorted((s for s in self.local() if s.name.startswith(prefix)), key=lambda s: s.created, reverse=True)
        for snapshot in own[kept_count:] if kept_count > 0 else []:
            self._delete_object(snapshot.name)
            removed.append(snapshot.name)
        if (bucket := self._bucket()) is not None:
            kept_count = self.config.number("etcd-s3-retention", DEFAULT_RETENTION)
            stored = sorted(
                (s for s in self.remote() if s.name.startswith(prefix)), key=lambda s: s.created, reverse=True
            )
            for snapshot in stored[kept_count:] if kept_count > 0 else []:
                bucket.delete(snapshot.name)
                removed.append(snapshot.location)
        for item in removed:
            log.info(f"Removed snapshot {item}")
        return removed

    def _delete_object(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / METADATA_DIR / name).unlink(missing_ok=True)

    def delete(self, name: str) -> bool:
        found = (self.folder / name).is_file()
        if found:
            self._delete_object(name)
        if (bucket := self._bucket()) is not None and any(item.name == name for item in bucket.list()):
            bucket.delete(name)
            found = True
        return found

    # ETCDSnapshotFile objects

    async def reconcile(self, extra: list[Snapshot] | None = None) -> None:
        """Converge the objects to the snapshots on this node's disk and in S3; `extra` are failed uploads."""
        tls = self.layout.tls
        api = ApiClient(
            tls / "server-ca.crt", tls / "client-supervisor.crt", tls / "client-supervisor.key", ["127.0.0.1"]
        )
        found = list(self.local())
        nodes = {self.node}
        try:
            if self.config.flag("etcd-s3"):
                known = {snapshot.name: snapshot.token_hash for snapshot in found}
                found += [
                    Snapshot(s.name, s.location, s.node, s.size, s.created, known.get(s.name, ""))
                    for s in await asyncio.to_thread(self.remote)
                ]
                nodes.add("s3")
        except S3Error as fault:
            log.error(f"Error retrieving S3 snapshots for reconciliation: {fault}")
        failed = [snapshot for snapshot in extra or [] if snapshot.error]
        wanted = {s.object_name: s.as_object(self.config) for s in [*found, *failed]}
        present = {item["metadata"]["name"]: item for item in (await api.call("GET", FILES)).json()["items"]}
        for name, item in wanted.items():
            if name not in present:
                answer = await api.call("POST", FILES, item)
                if answer.status == 201:
                    kind = "application/merge-patch+json"
                    await api.call("PATCH", f"{FILES}/{name}/status", {"status": item["status"]}, kind=kind)
        for name, item in present.items():
            is_obsolete = item["spec"]["nodeName"] in nodes and name not in wanted
            if is_obsolete and not item.get("status", {}).get("error"):
                await api.call("DELETE", f"{FILES}/{name}")

    async def run(self) -> None:
        """Run the schedule and the periodic reconciliation."""
        if self.config.flag("etcd-disable-snapshots"):
            return
        expression = self.config.text("etcd-snapshot-schedule-cron") or DEFAULT_CRON
        cron_matches(expression, datetime.now(UTC))
        name = self.config.text("etcd-snapshot-name") or "etcd-snapshot"
        reconciled = 0.0
        while True:
            if time.monotonic() - reconciled > RECONCILE_SECONDS:
                reconciled = time.monotonic()
                await self.reconcile_or_warn([])
            await asyncio.sleep(60 - time.time() % 60)
            if not cron_matches(expression, datetime.now().astimezone()):
                continue
            try:
                taken = await asyncio.to_thread(self.take, name)
                await asyncio.to_thread(self.prune, name)
            except (Fatal, S3Error) as fault:
                log.error(f"Failed to take scheduled etcd snapshot: {fault}")
                continue
            await self.reconcile_or_warn(taken)

    async def reconcile_or_warn(self, extra: list[Snapshot]) -> None:
        try:
            await self.reconcile(extra)
        except (OSError, ValueError, KeyError) as fault:
            log.warning(f"etcd snapshots could not be reconciled with the API: {fault}")


RENAMED = {
    "name": "etcd-snapshot-name",
    "dir": "etcd-snapshot-dir",
    "snapshot-compress": "etcd-snapshot-compress",
    "compress": "etcd-snapshot-compress",
    "snapshot-retention": "etcd-snapshot-retention",
    "retention": "etcd-snapshot-retention",
    "s3": "etcd-s3",
}


def _translate(arguments: list[str]) -> tuple[list[str], list[str], str]:
    """Flags of this command as flags of the server, positional arguments, and the output format."""
    flags: list[str] = []
    words: list[str] = []
    output = "table"
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        if name in ("o", "output"):
            output = value if has_value else (rest.pop(0) if rest else "")
            continue
        name = RENAMED.get(name, f"etcd-{name}" if name.startswith("s3-") else name)
        flag = settings.FLAGS.get(name)
        if flag is None:
            raise Fatal(f"flag provided but not defined: -{name}")
        if not has_value and flag.kind != "bool" and rest:
            value, has_value = rest.pop(0), "="
        flags.append(f"--{name}={value}" if has_value else f"--{name}")
    return flags, words, output


def command(arguments: list[str]) -> int:
    verbs = ("save", "ls", "list", "l", "delete", "prune")
    if not arguments or arguments[0] not in verbs:
        what = arguments[0] if arguments else "(nothing)"
        raise Fatal(f"rke2 etcd-snapshot takes one of save, ls, delete, prune; got {what}")
    verb = arguments[0]
    flags, words, output = _translate(arguments[1:])
    config = settings.load("server", flags, lenient=True)
    layout = Layout(config.data_dir)
    snapshots = Snapshots(config, layout, node_name(config))
    name = config.text("etcd-snapshot-name") or "on-demand"
    try:
        match verb:
            case "save":
                taken = snapshots.take(name)
                try:
                    snapshots.prune(name)
                except S3Error as fault:
                    log.error(f"Failed to apply s3 snapshot retention policy: {fault}")
                asyncio.run(snapshots.reconcile_or_warn(taken))
                print(f"Snapshot {taken[0].name} saved.")
            case "delete":
                if not words:
                    raise Fatal("no snapshots given for removal")
                for word in words:
                    if not snapshots.delete(word):
                        raise Fatal(
                            f"snapshot {word} not found on this node{' or in S3' if snapshots._bucket() else ''}"
                        )
                    print(f"Snapshot {word} deleted.")
                asyncio.run(snapshots.reconcile_or_warn([]))
            case "prune":
                for item in snapshots.prune(name):
                    print(f"Snapshot {item} deleted.")
                asyncio.run(snapshots.reconcile_or_warn([]))
            case _:
                show([*snapshots.local(), *snapshots.remote()], config, output)
    except S3Error as fault:
        raise Fatal(f"S3: {fault}") from fault
    return 0


def show(found: list[Snapshot], config: Config, output: str) -> None:
    if output in ("json", "yaml"):
        document: dict[str, Any] = {
            "kind": "ETCDSnapshotFileList",
            "apiVersion": "k3s.cattle.io/v1",
            "metadata": {},
            "items": [snapshot.as_object(config) for snapshot in found],
        }
        print(json.dumps(document) if output == "json" else yaml.safe_dump(document, sort_keys=False))
        return
    if output != "table":
        raise Fatal(f"invalid output format: {output}")
    width = max([len(s.name) for s in found] + [4])
    location_width = max([len(s.location) for s in found] + [8])
    print(f"{'Name':<{width}} {'Location':<{location_width}} {'Size':<10} Created")
    for s in sorted(found, key=lambda s: (s.name, s.location)):
        created = s.created.strftime("%Y-%m-%dT%H:%M:%SZ")
        print(f"{s.name:<{width}} {s.location:<{location_width}} {s.size:<10} {created}")


def unpack(content: bytes) -> bytes:
    """The snapshot, extracted if it is a zip file."""
    if not content.startswith(b"PK"):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0])
