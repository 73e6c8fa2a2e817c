"""Ansible module: verify a snapshot of etcd before a restore, and download it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rke2_restore_snapshot
short_description: Verify a snapshot of etcd before a restore, and download it
description:
  - Reads the snapshot from the bucket or from O(file), compares size and SHA-256 with its manifest, and the digest that
    etcd appended with the content. Requires the environment, the token and at most the RKE2 version of this cluster.
  - Stores the verified content of a snapshot from the bucket in O(destination), so that the restore reads what was
    verified, with or without the bucket.
author: [Slipway]
attributes:
  check_mode:
    support: full
    description: Verifies the snapshot and stores nothing.
options:
  snapshot:
    type: str
    default: ""
    description: File name of an object below C(etcd/) in the bucket, or V(latest) for the newest one with a manifest.
  file:
    type: path
    description:
      - Path of a snapshot on this server, in place of O(snapshot). Its manifest is C(<path>.json). It needs none when
        its name has the name of one of O(servers).
  endpoint:
    type: str
    default: ""
    description: URL of the store.
  region:
    type: str
    default: ""
    description: Region in the signature of requests.
  bucket:
    type: str
    default: ""
    description: Name of the bucket.
  ca_certificate:
    type: str
    default: ""
    description: Certificate authority of the store, PEM; empty for the trust store of the host.
  access_key:
    type: str
    default: ""
    description: Access key that reads the bucket.
  secret_key:
    type: str
    default: ""
    description: Secret key.
  environment_name:
    type: str
    required: true
    description: Name of this environment.
  version:
    type: str
    required: true
    description: The RKE2 version that restores the snapshot.
  token_fingerprints:
    type: list
    elements: str
    required: true
    description: Fingerprints of the server token; see the filter P(slipway.platform.rke2_token_fingerprints#filter).
  servers:
    type: list
    elements: str
    required: true
    description: Node names of the servers.
  without_manifest:
    type: bool
    default: false
    description: Whether to accept a snapshot without a manifest.
  destination:
    type: path
    required: true
    description: Directory for the downloaded snapshot.
"""

EXAMPLES = r"""
- name: Verify and download the newest snapshot
  slipway.platform.rke2_restore_snapshot:
    snapshot: latest
    endpoint: https://fsn1.your-objectstorage.com
    region: fsn1
    bucket: example-org-backup
    access_key: "{{ key }}"
    secret_key: "{{ secret }}"
    environment_name: prod
    version: v1.36.3+rke2r1
    token_fingerprints: "{{ rke2_token | slipway.platform.rke2_token_fingerprints }}"
    servers: [prod-rke2-server-1]
    destination: /var/lib/rancher/slipway-restore
"""

RETURN = r"""
snapshot:
  description: C(name), C(source), C(path) on this server, C(size_bytes), C(sha256), C(created) and C(rke2).
  returned: success
  type: dict
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.platform.plugins.module_utils import rke2_restore
from ansible_collections.slipway.platform.plugins.module_utils.rke2_restore import LATEST, MANIFESTS, OBJECTS
from ansible_collections.slipway.platform.plugins.module_utils.s3 import Key, S3Error, Store


class SnapshotError(Exception):
    """The snapshot must not be restored; the text holds the reasons."""


class Source:
    """The bucket, in the view of the writer of etcd's snapshots."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.bucket = parameters["bucket"]
        if not self.bucket or not parameters["access_key"]:
            raise SnapshotError(
                "rke2_etcd_s3_bucket: no bucket or no access key of etcd's snapshots is configured. Add the keys of "
                "the writer etcd to vault.yml, or name a file of a server (op_restore_etcd_file)."
            )
        try:
            self.store = Store(
                parameters["endpoint"],
                Key(parameters["access_key"], parameters["secret_key"]),
                region=parameters["region"],
                ca_certificate=parameters["ca_certificate"],
            )
        except (OSError, ValueError) as error:
            raise SnapshotError(
                f"platform_object_storage_ca_certificate: is not a certificate ({error}). Correct it."
            ) from error

    def read(self, key: str) -> bytes | None:
        """The object, or None if it does not exist."""
        try:
            return b"".join(self.store.download(f"/{self.bucket}/{key}"))
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def newest(self) -> str:
        objects = self.store.list_objects(self.bucket, OBJECTS)
        name = rke2_restore.choose_snapshot(objects, self.store.list_objects(self.bucket, MANIFESTS))
        if not name:
            raise SnapshotError(
                f"s3://{self.bucket}/{OBJECTS}: has {len(objects)} objects and no manifest for any of them. "
                "Name a snapshot (op_restore_etcd_snapshot), with op_restore_etcd_without_manifest=true."
            )
        return name


def from_bucket(parameters: dict[str, Any]) -> tuple[str, bytes, bytes | None]:
    """Name, content and manifest of the snapshot in the bucket."""
    source = Source(parameters)
    try:
        name = source.newest() if parameters["snapshot"] == LATEST else parameters["snapshot"]
        content = source.read(OBJECTS + name)
        manifest = source.read(f"{MANIFESTS}{name}.json")
    except S3Error as error:
        raise SnapshotError(rke2_restore.store_fault(source.store.endpoint, source.bucket, error)) from error
    if content is None:
        raise SnapshotError(f"s3://{source.bucket}/{OBJECTS}{name}: does not exist. Name an object below {OBJECTS}.")
    return name, content, manifest


def from_file(path: Path) -> tuple[str, bytes, bytes | None]:
    """Name, content and manifest of the snapshot on this server."""
    manifest = path.with_name(f"{path.name}.json")
    try:
        return path.name, path.read_bytes(), manifest.read_bytes() if manifest.exists() else None
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}. Name a snapshot on this server.") from error


def verify(parameters: dict[str, Any], name: str, content: bytes, text: bytes | None) -> dict[str, Any]:
    """The manifest of the verified snapshot, empty if there is none."""
    location = parameters["file"] or f"s3://{parameters['bucket']}/{OBJECTS}{name}"
    if text is None:
        own = bool(parameters["file"]) and rke2_restore.of_servers(name, parameters["servers"])
        if not own and not parameters["without_manifest"] and content:
            raise SnapshotError(
                f"{location}: has no manifest, so its environment, token and version are unknown. Name a snapshot with "
                "a manifest, or set op_restore_etcd_without_manifest=true."
            )
        manifest: dict[str, Any] = {}
        faults = []
    else:
        try:
            manifest = rke2_restore.parse_manifest(text)
        except ValueError as error:
            raise SnapshotError(f"{location}: its manifest {error}. Name another snapshot.") from error
        faults = rke2_restore.manifest_faults(
            manifest,
            name=location,
            environment=parameters["environment_name"],
            version=parameters["version"],
            token_fingerprints=parameters["token_fingerprints"],
        )
    damage = rke2_restore.object_fault(manifest, content, location) if manifest and content else ""
    damage = damage or rke2_restore.content_fault(content, location)
    if faults := faults + ([damage] if damage else []):
        raise SnapshotError("\n".join(faults))
    return manifest


def store(directory: Path, name: str, content: bytes) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, part = directory / name, directory / f".{name}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    part.replace(path)
    return path


def main() -> None:
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "snapshot": text,
            "file": {"type": "path"},
            "endpoint": text,
            "region": text,
            "bucket": text,
            "ca_certificate": text,
            "access_key": text,
            "secret_key": text | {"no_log": True},
            "environment_name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "token_fingerprints": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "servers": {"type": "list", "elements": "str", "required": True},
            "without_manifest": {"type": "bool", "default": False},
            "destination": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        name, content, text_of_manifest = (
            from_file(Path(parameters["file"])) if parameters["file"] else from_bucket(parameters)
        )
        manifest = verify(parameters, name, content, text_of_manifest)
    except SnapshotError as error:
        module.fail_json(msg=str(error))
    path = Path(parameters["file"] or Path(parameters["destination"], name))
    if not parameters["file"] and not module.check_mode:
        store(path.parent, name, content)
    module.exit_json(
        changed=not parameters["file"],
        snapshot={
            "name": name,
            "source": parameters["file"] or f"s3://{parameters['bucket']}/{OBJECTS}{name}",
            "path": str(path),
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "created": manifest.get("created", ""),
            "rke2": (manifest.get("software") or {}).get("rke2", ""),
        },
    )


if __name__ == "__main__":
    main()
