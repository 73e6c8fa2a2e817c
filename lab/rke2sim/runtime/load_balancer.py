"""The API on 127.0.0.1 of an agent: connections go to one of the servers, those that are down are skipped."""

from __future__ import annotations

import asyncio
import contextlib
import json

from . import log
from .http import background
from .layout import Layout
from .pki import write

CONNECT_SECONDS = 2
SERVER_PORT = 6443


class LoadBalancer:
    def __init__(self, layout: Layout, url: str, port: int) -> None:
        self.path = layout.load_balancer
        self.url = url
        self.port = port
        self.hosts: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def set_hosts(self, hosts: list[str]) -> None:
        """The servers, in the order in which they are tried: the one that answered last stays first."""
        if sorted(hosts) == sorted(self.hosts):
            return
        self.hosts = [host for host in self.hosts if host in hosts] + [host for host in hosts if host not in self.hosts]
        write(self.path, json.dumps({"ServerURL": self.url, "ServerAddresses": self.hosts}))
        log.info(f"Updated load balancer rke2-api-server-agent-load-balancer server addresses -> {self.hosts}")

    async def serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        async with server:
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for host in list(self.hosts):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    far_reader, far_writer = await asyncio.open_connection(host, SERVER_PORT)
            except (OSError, TimeoutError):
                if host in self.hosts:
                    self.hosts.remove(host)
                    self.hosts.append(host)
                continue
            background(self._tasks, "load balancer", self._pair(reader, writer, far_reader, far_writer))
            return
        writer.close()

    @staticmethod
    async def _pair(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
