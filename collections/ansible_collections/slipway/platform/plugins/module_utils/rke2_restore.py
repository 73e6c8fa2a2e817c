"""Decisions of a restore of etcd: pure functions over what was read from servers and bucket, without I/O.

Each server stores a record of the restore: the request, the verified snapshot, and the last completed step. A run that
was killed is resumed from these records by the same request; another request is rejected until then.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.rke2_plan import (
    RESTORE_RECORD,
    RESTORE_STEPS,
    parse_version,
)
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Entry, S3Error

SCHEMA = 1
OBJECTS, MANIFESTS = "etcd/", "manifests/etcd/"
LATEST = "latest"
FINGERPRINT_DIGITS = 16
DIGEST_BYTES = 32
"""etcd appends the SHA-256 of a snapshot to it."""
PAGE_BYTES = 512

CREDENTIAL_CODES = ("AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")


# --- the snapshot ----------------------------------------------------------------------------------------------------


def store_fault(endpoint: str, bucket: str, error: S3Error) -> str:
    """A failed request as one sentence: what is wrong with the store, and the remedy."""
    store = f"s3://{bucket} at {endpoint}"
    if error.status == 0 and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"{store}: its certificate is not signed by the configured authority ({error}). "
            "Correct platform_object_storage_ca_certificate."
        )
    if error.status == 0:
        return f"{store}: unreachable ({error}). Check its address, DNS and the firewalls, then run again."
    if error.code == "RequestTimeTooSkewed":
        return f"{store}: rejects the clock of this server ({error}). Correct its time, then run again."
    if error.code == "NoSuchBucket":
        return f"{store}: the bucket does not exist. Correct platform_object_storage_bucket."
    if error.code in CREDENTIAL_CODES or error.status in (401, 403):
        return (
            f"{store}: rejects the access key ({error.code or error.status}). "
            "Correct rke2_etcd_s3_access_key and its secret key, those of the writer etcd in vault.yml."
        )
    return f"{store}: {error}. Correct the cause, then run again."


def choose_snapshot(objects: Iterable[Entry], manifests: Iterable[Entry]) -> str:
    """File name of the newest object that has a manifest, or an empty text."""
    described = {entry.key.removeprefix(MANIFESTS).removesuffix(".json") for entry in manifests}
    names = {entry.key.removeprefix(OBJECTS): entry.modified for entry in objects}
    return max((name for name in names if name in described), key=lambda name: names[name], default="")


def fingerprints(token: str) -> tuple[str, ...]:
    """First digits of the SHA-256 of a server token: of its password, and of the whole text."""
    text = token.strip()
    values = dict.fromkeys((text.rpartition(":")[2], text))
    return tuple(hashlib.sha256(value.encode()).hexdigest()[:FINGERPRINT_DIGITS] for value in values)


def parse_manifest(text: bytes) -> dict[str, Any]:
    """The manifest; ValueError holds why it is not one."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise ValueError(f"has schema {found}, and this version reads {SCHEMA}")
    return document


def manifest_faults(
    manifest: Mapping[str, Any],
    *,
    name: str,
    environment: str,
    version: str,
    token_fingerprints: Sequence[str],
) -> list[str]:
    """Why the snapshot that the manifest describes must not be restored here."""
    faults = []
    if manifest.get("environment") != environment:
        faults.append(
            f"{name}: is a snapshot of environment {manifest.get('environment')}, and this one is {environment}. "
            "Name a snapshot of this environment."
        )
    if manifest.get("token_fingerprint") not in token_fingerprints:
        faults.append(
            f"{name}: was taken under another token (fingerprint {manifest.get('token_fingerprint')}, "
            f"rke2_token has {token_fingerprints[0]}), which encrypts the bootstrap data in it. "
            "Set rke2_token to the token of that time."
        )
    taken = str((manifest.get("software") or {}).get("rke2", ""))
    try:
        newer = parse_version(taken) > parse_version(version)
    except ValueError as error:
        faults.append(f"{name}: its manifest has no valid version of RKE2 ({error})")
    else:
        if newer:
            faults.append(
                f"{name}: was taken by RKE2 {taken}, newer than rke2_version {version}. "
                f"Set rke2_version to {taken} or newer."
            )
    return faults


def content_fault(content: bytes, name: str) -> str:
    """Why the content, which ends with a digest of etcd, is not a complete snapshot, or an empty text."""
    if not content:
        return f"{name}: is empty (0 bytes). Name another snapshot."
    inner = content
    if name.endswith(".zip"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                inner = archive.read(archive.namelist()[0])
        except (zipfile.BadZipFile, IndexError, OSError, zlib.error) as error:
            return f"{name}: is not a complete zip file of {len(content)} bytes ({error}). Name another snapshot."
    data, digest = inner[:-DIGEST_BYTES], inner[-DIGEST_BYTES:]
    if len(inner) % PAGE_BYTES != DIGEST_BYTES or hashlib.sha256(data).digest() != digest:
        return (
            f"{name}: is truncated or damaged, its {len(inner)} bytes do not match the digest that etcd appended. "
            "Name another snapshot."
        )
    return ""


def object_fault(manifest: Mapping[str, Any], content: bytes, name: str) -> str:
    """How the content differs from its manifest, or an empty text."""
    if len(content) != manifest.get("size_bytes"):
        return (
            f"{name}: has {len(content)} bytes, and its manifest {manifest.get('size_bytes')}; it is truncated or was "
            "replaced. Name another snapshot."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.get("sha256"):
        return (
            f"{name}: its SHA-256 is {digest[:16]}…, and {str(manifest.get('sha256'))[:16]}… in its manifest. "
            "Name another snapshot."
        )
    return ""


def of_servers(name: str, servers: Iterable[str]) -> bool:
    """Whether a snapshot's file name, <name>-<node>-<time>[.zip], contains one of these nodes."""
    return any(re.search(rf"-{re.escape(server)}-\d+(?:[.]zip)?$", name) for server in servers)


# --- the restore -----------------------------------------------------------------------------------------------------


def describe(request: Mapping[str, Any]) -> str:
    """The request in words: what is restored."""
    if request["reset_only"]:
        return "a reset without a snapshot"
    return str(request["file"] or f"snapshot {request['snapshot']}")


def plan(request: Mapping[str, Any], hosts: Mapping[str, Any], servers: Sequence[str], now: str) -> dict[str, Any]:
    """Target, start time and previous progress of the restore, or the faults that forbid it.

    `hosts` are results of rke2_restore_state by server; `now` is the start time of a new restore.
    """
    if missing := [name for name in servers if name not in hosts]:
        return _faulty(
            [f"{', '.join(missing)}: not read in this run. Run without --limit; a restore needs every server."]
        )
    unfinished = {
        name: record for name in servers if (record := hosts[name]["record"]) and record["step"] != "finished"
    }
    if unfinished:
        others = [name for name, record in unfinished.items() if record["request"] != dict(request)]
        starts = sorted({record["started_at"] for record in unfinished.values()})
        if others:
            record = unfinished[others[0]]
            return _faulty([
                f"{others[0]}: {describe(record['request'])} of {record['started_at']} is unfinished, and this run "
                f"requests {describe(request)}. Finish it with its own options, or remove {RESTORE_RECORD} "
                "on every server to abandon it."
            ])  # fmt: skip
        if len(starts) > 1:
            return _faulty([
                f"{', '.join(unfinished)}: their unfinished restores started at different times ({', '.join(starts)}). "
                f"Remove {RESTORE_RECORD} on every server, then run again."
            ])  # fmt: skip
        record = next(iter(unfinished.values()))
        return {
            "faults": [],
            "target": record["target"],
            "started_at": record["started_at"],
            "snapshot": record["snapshot"],
            "resumed": True,
            "steps": _previous(hosts, servers, record["started_at"]),
        }
    target, fault = _target(request, hosts, servers)
    if fault:
        return _faulty([fault])
    return {
        "faults": [],
        "target": target,
        "started_at": now,
        "snapshot": None,
        "resumed": False,
        "steps": dict.fromkeys(servers, "none"),
    }


def _faulty(faults: list[str]) -> dict[str, Any]:
    return {"faults": faults, "target": "", "started_at": "", "snapshot": None, "resumed": False, "steps": {}}


def _previous(hosts: Mapping[str, Any], servers: Sequence[str], started_at: str) -> dict[str, str]:
    """Last completed step of this restore by server."""
    records = {name: hosts[name]["record"] for name in servers}
    return {
        name: record["step"] if record and record["started_at"] == started_at else "none"
        for name, record in records.items()
    }


def _target(request: Mapping[str, Any], hosts: Mapping[str, Any], servers: Sequence[str]) -> tuple[str, str]:
    """The server that etcd is reset on, or why there is none."""
    named = request["host"]
    if named and named not in servers:
        return "", f"op_restore_etcd_host: {named} is not a server. Name one of {', '.join(servers)}."
    if request["file"]:
        holders = [name for name in servers if hosts[name]["file_exists"]]
        if (named and named not in holders) or not holders:
            return "", (
                f"op_restore_etcd_file: {request['file']} is not a file on {named or 'any server'}. "
                + (f"It is on {', '.join(holders)}." if holders else "Name the path of a snapshot on a server.")
            )
        return named or holders[0], ""
    if not request["reset_only"]:
        return named or servers[0], ""
    if healthy := [name for name in servers if hosts[name]["quorum"]]:
        return "", (
            f"op_restore_etcd_reset_only: etcd has a quorum on {', '.join(healthy)}, so no reset is needed. "
            "Replace lost servers with site.yml."
        )
    survivors = [name for name in servers if hosts[name]["has_data"]]
    if not survivors:
        return "", "op_restore_etcd_reset_only: no server holds data of etcd. Restore a snapshot."
    if named and named not in survivors:
        return "", f"op_restore_etcd_host: {named} holds no data of etcd. Name one of {', '.join(survivors)}."
    if named or len(survivors) == 1:
        return named or survivors[0], ""
    indices = {name: hosts[name]["raft_index"] for name in survivors}
    if any(index is None for index in indices.values()):
        unknown = [name for name in survivors if indices[name] is None]
        return "", (
            f"op_restore_etcd_host: {', '.join(survivors)} hold data, and etcd does not answer on {', '.join(unknown)}"
            ", so the newest data is unknown. Start rke2-server there, or name the server to keep."
        )
    return max(survivors, key=lambda name: indices[name]), ""


def next_record(
    request: Mapping[str, Any], planned: Mapping[str, Any], snapshot: Mapping[str, Any] | None, step: str
) -> dict[str, Any]:
    """The record of a server at the start of a run; progress of an earlier run stays."""
    return {
        "schema": SCHEMA,
        "request": dict(request),
        "snapshot": dict(snapshot) if snapshot else None,
        "target": planned["target"],
        "started_at": planned["started_at"],
        "step": "recorded" if step == "none" else step,
        "previous": "",
    }


def pending(step: str, current: str) -> bool:
    """Whether a step is still to be done on a server whose last completed step is `current`."""
    return RESTORE_STEPS.index(current) < RESTORE_STEPS.index(step)


def stale_nodes(nodes: Iterable[Mapping[str, Any]], servers: Sequence[str]) -> list[str]:
    """Names of Node objects of servers that the inventory no longer has."""
    return sorted(
        node["metadata"]["name"]
        for node in nodes
        if "node-role.kubernetes.io/etcd" in (node["metadata"].get("labels") or {})
        and node["metadata"]["name"] not in servers
    )


def password_secrets(secrets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the Secrets that hold the passwords of nodes."""
    return sorted(name for secret in secrets if (name := secret["metadata"]["name"]).endswith(".node-password.rke2"))
