"""A bounded load of 64 KiB writes with a ledger of acknowledged objects, which are read back afterwards.

Runs inside a container of the Ceph image on a host of the cluster: `write` until the file `stop` exists beside the
ledger, `verify` to compare and remove every acknowledged object. Settings come as JSON in `settings.json` in the same
folder.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path("/ledger")
SIZE = 64 * 1024


def content(name: str) -> bytes:
    return hashlib.shake_256(name.encode()).digest(SIZE)


class Rados:
    """Objects of a pool, with a client key of its own; operations have no timeout."""

    def __init__(self, settings: dict[str, Any]) -> None:
        rados = import_module("rados")  # exists in that image only
        self.errors: tuple[type[Exception], ...] = (rados.Error,)
        self.cluster = rados.Rados(
            name=settings["client"],
            conffile=str(FOLDER / "ceph.conf"),
            conf={"keyring": str(FOLDER / "keyring"), "client_mount_timeout": "120"},
        )
        self.cluster.connect(timeout=120)
        self.pool = self.cluster.open_ioctx(settings["pool"])

    def put(self, name: str, data: bytes) -> None:
        self.pool.write_full(name, data)

    def get(self, name: str) -> bytes:
        return bytes(self.pool.read(name, SIZE + 1))

    def remove(self, name: str) -> None:
        self.pool.remove_object(name)


class S3:
    """Objects of a bucket through any gateway that answers, by signature version 4, as a client with retries would."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.errors: tuple[type[Exception], ...] = (OSError, http.client.HTTPException)
        self.gateways = list(settings["gateways"])
        self.context = ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
        self.connection: http.client.HTTPConnection | None = None

    def connect(self) -> http.client.HTTPConnection:
        if self.connection is None:
            address, port = self.gateways[0]
            raw = socket.create_connection((address, port), timeout=5)
            connection = http.client.HTTPConnection(address, port, timeout=5)
            connection.sock = self.context.wrap_socket(raw, server_hostname=self.settings["name"])
            self.connection = connection
        return self.connection

    def request(self, method: str, path: str, data: bytes) -> bytes:
        connection = self.connect()
        connection.request(method, path, data or None, self.signed(method, path, data))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            raise OSError(f"{method} {path}: {answer.status} {body[:200]!r}")
        return body

    def persist(self, method: str, path: str, data: bytes = b"", seconds: float = 300) -> bytes:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.request(method, path, data)
            except (OSError, http.client.HTTPException) as error:
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                self.gateways.append(self.gateways.pop(0))
                if time.monotonic() > deadline:
                    raise
                print(f"{time.time():.3f} {error!r}", file=sys.stderr, flush=True)
                time.sleep(0.2)

    def signed(self, method: str, path: str, data: bytes) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(data).hexdigest()
        headers = {"host": self.settings["name"], "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        canonical = "\n".join(
            [method, path, "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, digest]
        )
        scope = f"{day}/default/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.settings['secret_key']}".encode()
        for part in (day, "default", "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        credential = f"{self.settings['access_key']}/{scope}"
        return headers | {
            "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={key.hex()}"
        }

    def make_bucket(self) -> None:
        self.persist("PUT", f"/{self.settings['bucket']}")

    def put(self, name: str, data: bytes) -> None:
        self.persist("PUT", f"/{self.settings['bucket']}/{name}", data)

    def get(self, name: str) -> bytes:
        return self.persist("GET", f"/{self.settings['bucket']}/{name}", seconds=30)

    def remove(self, name: str) -> None:
        self.persist("DELETE", f"/{self.settings['bucket']}/{name}", seconds=30)


def write(store: Any, settings: dict[str, Any]) -> None:
    """One object after the other; the ledger gets a line, synced to disk, for each acknowledged object only."""
    if isinstance(store, S3):
        store.make_bucket()
    number, pause = 0, 1 / settings["per_second"]
    with (FOLDER / "ledger").open("a") as ledger:
        while not (FOLDER / "stop").exists():
            name = f"{settings['prefix']}-{number:06d}"
            data = content(name)
            began = time.time()
            try:
                store.put(name, data)
            except store.errors as error:
                with (FOLDER / "failed").open("a") as failed:
                    failed.write(f"{name} {began:.3f} {error!r}\n")
                time.sleep(pause)
            else:
                ended = time.time()
                ledger.write(f"{name} {hashlib.sha256(data).hexdigest()} {began:.3f} {ended:.3f}\n")
                ledger.flush()
                os.fsync(ledger.fileno())
                time.sleep(max(0.0, pause - (ended - began)))
            number += 1


def verify(store: Any) -> dict[str, Any]:
    wrong = []
    lines = (FOLDER / "ledger").read_text().splitlines()
    for line in lines:
        name, digest, _, _ = line.split()
        try:
            same = hashlib.sha256(store.get(name)).hexdigest() == digest
        except store.errors as error:
            wrong.append(f"{name}: {error!r}")
        else:
            if same:
                store.remove(name)  # else the next load finds a pool so full that Ceph warns of it
            else:
                wrong.append(f"{name}: another content")
    return {"acknowledged": len(lines), "wrong": wrong}


def main() -> None:
    settings = json.loads((FOLDER / "settings.json").read_text())
    store = S3(settings) if settings["kind"] == "s3" else Rados(settings)
    if sys.argv[1] == "write":
        (FOLDER / "ready").touch()
        write(store, settings)
    else:
        print(json.dumps(verify(store)))


if __name__ == "__main__":
    main()
