"""An S3 endpoint, accessed from the network of a host of the platform, by name and with the platform's CA."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lab.machines import namespaces

CLONE_NEWNET = 0x40000000
PARTS_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Keys:
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Endpoint:
    """A store under its name, accessed from the network namespace of one of the lab's hosts."""

    name: str
    address: str
    port: int
    ca_path: Path
    namespace: str
    """Network namespace of the client host."""
    owner: Keys
    multipart_bytes: int

    @property
    def url(self) -> str:
        return f"https://{self.name}" + ("" if self.port == 443 else f":{self.port}")

    def client(self, keys: Keys | None = None, **more: Any) -> Any:
        """A boto3 client with signature version 4, path addressing and no retries."""
        keys = keys or self.owner
        settings = Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1},
            connect_timeout=10, read_timeout=60,
        )  # fmt: skip
        wanted = {
            "endpoint_url": self.url,
            "region_name": "default",
            "verify": str(self.ca_path),
            "config": settings,
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
        }
        return boto3.session.Session().client("s3", **(wanted | more))

    @contextmanager
    def accessed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """This thread uses the host's network, and resolves the store's name as the host does."""
        getaddrinfo = socket.getaddrinfo

        def answer(host: Any, port: Any, *more: Any, **named: Any) -> Any:
            return getaddrinfo(self.address if host == self.name else host, port, *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        own_namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        host_namespace = os.open(namespaces.path(self.namespace), os.O_RDONLY)
        try:
            os.setns(host_namespace, CLONE_NEWNET)
            yield
        finally:
            os.setns(own_namespace, CLONE_NEWNET)
            os.close(own_namespace)
            os.close(host_namespace)

    def handshake(self, ca_path: Path, **limits: ssl.TLSVersion) -> str | None:
        """The TLS version of a verified handshake."""
        context = ssl.create_default_context(cafile=str(ca_path))
        for limit, version in limits.items():
            setattr(context, limit, version)
        with (
            socket.create_connection((self.address, self.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=self.name) as channel,
        ):
            return channel.version()

    def run(self, command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """A program of this machine in the host's network namespace, with the host's names in a mount namespace."""
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "sh", "-c", script, "sh", *command],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def with_owner(self, keys: Keys) -> Endpoint:
        return replace(self, owner=keys)


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    """The store's error code for a call that it must reject."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error: Mapping[str, Any] = caught.value.response["Error"]
    return str(error["Code"])


def empty(client: Any, bucket: str) -> None:
    """Remove a bucket of a test with all versions."""
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    listed = client.list_object_versions(Bucket=bucket)
    for entry in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
        client.delete_object(Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"])
    client.delete_bucket(Bucket=bucket)
