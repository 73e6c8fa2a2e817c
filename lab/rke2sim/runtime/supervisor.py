"""Port 9345: nodes fetch the cluster's secrets and certificates, authenticated by token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from . import log, tokens
from .api_client import ApiClient, expected
from .etcd import Etcd
from .http import Answer, Client, Request, Response, client_context, json_response, text_response
from .layout import NODE_PASSWORD, Layout
from .log import Fatal
from .pki import issue, write
from .resources import Obj

PORT = 9345
REJECTED = (
    "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server "
    "node-passwd entry, try enabling a unique node name with the --with-node-id flag"
)


def node_password() -> str:
    """The password that authenticates a node by its name."""
    if not NODE_PASSWORD.exists():
        write(NODE_PASSWORD, tokens.generate() + "\n")
    return NODE_PASSWORD.read_text().strip()


class NodePasswords:
    """The node passwords: Secrets `<node>.node-password.rke2` in kube-system."""

    SECRETS = "/api/v1/namespaces/kube-system/secrets"

    def __init__(self, api: ApiClient) -> None:
        self.api = api

    @staticmethod
    def secret_name(node: str) -> str:
        return f"{node}.node-password.rke2"

    async def ensure(self, node: str, password: str) -> bool:
        """Whether the password is the node's; the first one that is given becomes it."""
        digest = base64.b64encode(hashlib.sha256(f"{node}:{password}".encode()).hexdigest().encode()).decode()
        name = self.secret_name(node)
        item: Obj = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "kube-system"},
            "type": "Opaque",
            "immutable": True,
            "data": {"hash": digest},
        }
        created = await self.api.call("POST", self.SECRETS, item)
        if created.status == 201:
            return True
        expected(created, 409)
        present = expected(await self.api.call("GET", f"{self.SECRETS}/{name}"))
        return bool((present.get("data") or {}).get("hash") == digest)

    async def remove(self, node: str) -> None:
        expected(await self.api.call("DELETE", f"{self.SECRETS}/{self.secret_name(node)}"), 200, 404)


def node_certificates(layout: Layout, node: str, addresses: list[str]) -> dict[str, str]:
    """The certificates and keys of a node, issued by this server's CAs: file name in agent/ → content."""
    client_ca = layout.tls / "client-ca.crt", layout.tls / "client-ca.key"
    server_ca = layout.tls / "server-ca.crt", layout.tls / "server-ca.key"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def pair(file: str, ca: tuple[Path, Path], subject: str, **options: Any) -> None:
            issue(ca, folder / f"{file}.crt", folder / f"{file}.key", subject, **options)

        pair("client-kubelet", client_ca, f"system:node:{node}", organization="system:nodes")
        pair("client-kube-proxy", client_ca, "system:kube-proxy")
        names = [node, "localhost", "127.0.0.1", *addresses]
        pair("serving-kubelet", server_ca, node, names=names, usage="serverAuth")
        files = {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}
    for authority in ("server-ca.crt", "client-ca.crt"):
        files[authority] = (layout.tls / authority).read_text()
    return files


class Supervisor:
    """The handler of 9345. As in RKE2 it listens before the server is ready, and returns 503 until then."""

    def __init__(self, layout: Layout, server_password: str, agent_password: str, cluster: Obj) -> None:
        self.layout = layout
        self.server_password = server_password
        self.agent_password = agent_password
        self.cluster = cluster
        self.etcd: Etcd | None = None
        self.passwords: NodePasswords | None = None
        self.server_addresses: Callable[[], Awaitable[list[str]]] | None = None

    def _role(self, request: Request) -> str:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return ""
        try:
            user, _, password = base64.b64decode(value).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        if user == tokens.SERVER_USER and password == self.server_password:
            return "server"
        if user == tokens.AGENT_USER and password in (self.agent_password, self.server_password):
            return "node"
        return ""

    async def handle(self, request: Request) -> Response:
        if request.path == "/cacerts":
            return Response(200, (self.layout.tls / "server-ca.crt").read_bytes(), "text/plain")
        if request.path == "/ping":
            return text_response("pong")
        role = self._role(request)
        if not role:
            return text_response("401 Unauthorized\n", 401)
        match request.path:
            case "/v1-rke2/readyz":
                return text_response("ok") if self.passwords else text_response("runtime core not ready\n", 503)
            case "/v1-rke2/config":
                return json_response(self.cluster)
            case "/v1-rke2/client-kubelet":
                return await self._kubelet(request)
            case "/v1-rke2/server-bootstrap" | "/db/info" if role != "server":
                return text_response("403 Forbidden\n", 403)
            case "/v1-rke2/server-bootstrap":
                files = {name: path.read_text() for name, path in self.layout.bootstrap_files().items()}
                return json_response(files)
            case "/db/info":
                if self.etcd is None or self.passwords is None:
                    return text_response("runtime core not ready\n", 503)
                return json_response({"members": await self.etcd.members()})
        return text_response(f"the simulation of RKE2 does not support {request.path}\n", 404)

    async def _kubelet(self, request: Request) -> Response:
        """Issue a node's client certificate for its name and password."""
        if self.passwords is None or self.server_addresses is None:
            return text_response("runtime core not ready\n", 503)
        node = request.headers.get("rke2-node-name", "")
        password = request.headers.get("rke2-node-password", "")
        if not node or not password:
            return text_response("node name and password are required\n", 400)
        try:
            accepted = await self.passwords.ensure(node, password)
        except (OSError, TimeoutError, ValueError) as fault:
            return text_response(f"{fault}\n", 503)
        if not accepted:
            log.error(f"node {node} ({request.remote}): {REJECTED}")
            return text_response(f"{REJECTED}\n", 403)
        addresses = [item for item in request.headers.get("rke2-node-ip", "").split(",") if item]
        return json_response(
            {"files": node_certificates(self.layout, node, addresses), "servers": await self.server_addresses()}
        )


class Registration:
    """A node's client of 9345: verifies the CA with the token's hash and authenticates with the token."""

    def __init__(self, url: str, token: tokens.Token, role: str) -> None:
        host, _, port = url.removeprefix("https://").rstrip("/").rpartition(":")
        if not url.startswith("https://") or not host or not port.isdecimal():
            raise Fatal(f"invalid server URL {url!r}: expected https://<host>:{PORT}")
        self.url, self.host, self.port = url.rstrip("/"), host.strip("[]"), int(port)
        user = token.user or (tokens.SERVER_USER if role == "server" else tokens.AGENT_USER)
        self.token = token
        self.authorization = "Basic " + base64.b64encode(f"{user}:{token.password}".encode()).decode()
        self.ca = ""

    async def connect(self) -> Client:
        """Fetch the CA, compare it with the token's hash, and trust only this CA."""
        first = Client(self.host, self.port, client_context(None))
        try:
            answer = await first.request("GET", "/cacerts", timeout=10)
        finally:
            first.close()
        if answer.status != 200:
            raise ConnectionError(f"{self.url}/cacerts: {answer.status}")
        actual = tokens.ca_hash(answer.body)
        if self.token.ca_hash and self.token.ca_hash != actual:
            raise Fatal(
                f"token CA hash does not match the Cluster CA certificate hash: {self.token.ca_hash} != {actual}"
            )
        self.ca = answer.body.decode()
        context = client_context(self.ca)
        context.hostname_checks_common_name = False
        return Client(self.host, self.port, context, authorization=self.authorization)

    async def request(self, path: str, headers: dict[str, str] | None = None) -> Any:
        """Send one request. A wrong token is fatal; errors that may be temporary raise ConnectionError."""
        client = await self.connect()
        try:
            answer: Answer = await client.request("GET", path, timeout=10, headers=headers or {})
        except ssl.SSLCertVerificationError as fault:
            raise Fatal(f"failed to validate connection to cluster at {self.url}: {fault.verify_message}") from fault
        finally:
            client.close()
        if answer.status == 401:
            raise Fatal(f"failed to get CA certs: {self.url}{path}: 401 Unauthorized (the token is not the cluster's)")
        if answer.status == 403 and path == "/v1-rke2/server-bootstrap":
            raise Fatal(f"failed to get CA certs: {self.url}{path}: 403 Forbidden (an agent token cannot join servers)")
        if answer.status != 200:
            raise ConnectionError(answer.body.decode(errors="replace").strip() or f"{path}: {answer.status}")
        return json.loads(answer.body)
