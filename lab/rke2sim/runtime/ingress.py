"""The ingress in its pod, on Traefik's ports: routes Ingress objects; other responses contain the request."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

from . import http, ingress_routes, log, traefik
from .api_client import ApiClient
from .ingress_settings import IngressSettings

PORTS = {entry: int(port) for entry, port in traefik.ENTRIES.items()}
CONNECT_SECONDS = 5
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "expect", "te", "trailer", "upgrade")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def trusted(address: str, ranges: list[str]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(item) for item in ranges)


async def read_proxy_line(connection: socket.socket) -> str | None:
    """Consume a PROXY v1 line and return its client address; None without such a line."""
    loop = asyncio.get_running_loop()
    prefix = b"PROXY "
    for _ in range(100):
        ready = asyncio.Event()
        loop.add_reader(connection, ready.set)
        try:
            await asyncio.wait_for(ready.wait(), 10)
        finally:
            loop.remove_reader(connection)
        received = connection.recv(108, socket.MSG_PEEK)
        if not received or not (received.startswith(prefix) or prefix.startswith(received)):
            return None
        if b"\r\n" in received:
            line = connection.recv(received.index(b"\r\n") + 2).decode("ascii", "replace").split()
            return line[2] if len(line) >= 6 and line[1] in ("TCP4", "TCP6") else ""
        if len(received) >= 108:
            break
        await asyncio.sleep(0.02)
    raise http.BadRequest("a PROXY line without a line end")


class Ingress:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = ""
        self.entries: dict[str, Any] = {}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificates: dict[str, ssl.SSLContext] = {}
        self.routes: list[ingress_routes.Route] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.load()

    def load(self) -> None:
        settings = json.loads((self.folder / "settings.json").read_text())
        path = self.folder / "routes.json"
        found = json.loads(path.read_text()) if path.exists() else {"routes": [], "certificates": {}}

        def context(folder: Path) -> ssl.SSLContext:
            made = http.server_context(folder / "tls.crt", folder / "tls.key")
            made.minimum_version = ssl.TLSVersion[settings["minimum"]]
            return made

        self.node, self.entries, self.context = settings["node"], settings["entries"], context(self.folder)
        self.certificates = {host: context(Path(folder)) for host, folder in found["certificates"].items()}
        self.context.sni_callback = self.choose_certificate
        self.routes = [ingress_routes.Route(**route) for route in found["routes"]]
        log.info(
            f"ingress of {self.node}: {len(self.routes)} routes, {1 + len(self.certificates)} certificates, "
            f"TLS from {settings['minimum']} on, {self.entries}"
        )

    def choose_certificate(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        host = (name or "").lower()
        for pattern in (host, f"*.{host.partition('.')[2]}"):
            if pattern in self.certificates:
                connection.context = self.certificates[pattern]
                return

    async def answer(self, entry: str, request: http.Request) -> http.Response:
        headers = request.headers
        route = ingress_routes.find(self.routes, headers.get("host", ""), request.path)
        if request.path == "/ping" and route is None:
            return http.text_response("OK")
        settings = self.entries[entry]
        if settings["redirection"]:
            return redirect(settings["redirection"], request)
        if not trusted(request.remote, settings["forwarded"]):
            headers = {name: value for name, value in headers.items() if not name.startswith("x-forwarded-")}
        if route:
            return await forward(route, request, headers, entry)
        return http.json_response(
            {
                "node": self.node,
                "method": request.method,
                "path": request.target,
                "headers": headers,
                "remote": request.remote,
                "simulation": True,
            }
        )

    async def serve(self, listener: socket.socket, entry: str) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            connection, peer = await loop.sock_accept(listener)
            connection.setblocking(False)
            http.background(self.tasks, f"connection on {entry}", self._one(connection, str(peer[0]), entry))

    async def _one(self, connection: socket.socket, peer: str, entry: str) -> None:
        loop = asyncio.get_running_loop()
        remote = peer.removeprefix("::ffff:")
        server = http.Server(lambda request: self.answer(entry, request))
        try:
            if trusted(remote, self.entries[entry]["proxy"]):
                remote = await read_proxy_line(connection) or remote
            reader = asyncio.StreamReader(limit=http.MAX_HEAD)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self.context if entry == "websecure" else None
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            await server.guarded(reader, writer, remote)
        except (OSError, TimeoutError, http.BadRequest):
            connection.close()


async def forward(
    route: ingress_routes.Route, request: http.Request, headers: dict[str, str], entry: str
) -> http.Response:
    """Send the request to the Service, with the headers about the client that Traefik adds."""
    if not route.address:
        return http.text_response("no available server\n", 503)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(route.address, route.port)
    except (OSError, TimeoutError) as fault:
        log.warning(f"{request.method} {request.target}: {route.address}:{route.port}: {fault or 'timeout'}")
        return http.text_response("Bad Gateway\n", 502)
    upgrade = headers.get("upgrade", "")
    before = headers.get("x-forwarded-for")
    sent = {
        "x-forwarded-host": headers.get("host", ""),
        "x-forwarded-port": {"web": "80", "websecure": "443"}[entry],
        "x-forwarded-proto": {"web": "http", "websecure": "https"}[entry],
        "x-real-ip": request.remote,
        **{name: value for name, value in headers.items() if name not in HOP_BY_HOP},
        "x-forwarded-for": f"{before}, {request.remote}" if before else request.remote,
        "connection": "upgrade" if upgrade else "close",
        **({"upgrade": upgrade} if upgrade else {}),
        **({"content-length": str(len(request.body))} if request.body or "content-length" in headers else {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    writer.write(f"{request.method} {request.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + request.body)
    return http.Response(relay=http.Relay(reader, writer, bool(upgrade)))


def redirect(redirection: traefik.Settings, request: http.Request) -> http.Response:
    is_get = request.method == "GET"  # redirects of other requests keep the method
    status = (301 if is_get else 308) if redirection["permanent"] else (302 if is_get else 307)
    where = traefik.location(redirection, request.headers.get("host", ""), request.target)
    response = http.text_response(http.REASONS[status], status)
    response.headers["Location"] = where
    return response


async def main(folder: Path) -> None:
    """Serve in a pod, with the rights of its service account, until the kubelet stops it."""
    api = ApiClient(
        ACCOUNT / "ca.crt", None, None, [os.environ["KUBERNETES_SERVICE_HOST"]],
        port=int(os.environ["KUBERNETES_SERVICE_PORT"]), token_file=ACCOUNT / "token",
    )  # fmt: skip
    settings = IngressSettings(folder, os.environ["NODE_NAME"], api)
    settings.prepare()
    ingress = Ingress(folder)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listeners = {
        entry: socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
        for entry, port in PORTS.items()
    }
    work = [asyncio.create_task(ingress.serve(listener, entry)) for entry, listener in listeners.items()]
    work.append(asyncio.create_task(settings.follow(ingress.load)))
    ended = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*work, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
