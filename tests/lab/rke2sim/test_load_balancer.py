"""The load balancer of an agent: the API on loopback, from whichever server accepts connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from lab.rke2sim.runtime import load_balancer
from lab.rke2sim.runtime.layout import Layout
from lab.rke2sim.runtime.load_balancer import LoadBalancer

from .conftest import free_port


async def answer_of(port: int) -> str:
    """The answer of the server that a connection reaches; empty when none accepts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return (await asyncio.wait_for(reader.read(), 10)).decode()
    finally:
        writer.close()


async def start_server(host: str, port: int) -> asyncio.Server:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(host.encode())
        writer.close()

    return await asyncio.start_server(answer, host, port)


async def answers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answers with both servers, after the first one is lost, and after both are lost."""
    server_port, port = free_port(), free_port()
    monkeypatch.setattr(load_balancer, "SERVER_PORT", server_port)
    servers = [await start_server(host, server_port) for host in ("127.0.0.2", "127.0.0.3")]
    balancer = LoadBalancer(layout, "https://lb.test:9345", port)
    balancer.set_hosts(["127.0.0.2", "127.0.0.3"])
    serving = asyncio.create_task(balancer.serve())
    found = []
    for server in [None, *servers]:
        if server is not None:
            server.close()
            await server.wait_closed()
        while True:
            with suppress(ConnectionRefusedError):  # the load balancer does not listen yet
                found.append(await answer_of(port))
                break
            await asyncio.sleep(0.01)
    serving.cancel()
    return found


def test_a_lost_server_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(answers(Layout(tmp_path), monkeypatch)) == ["127.0.0.2", "127.0.0.3", ""]


def test_a_server_that_answered_stays_first(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    balancer = LoadBalancer(layout, "https://lb.test:9345", 1)
    balancer.set_hosts(["a", "b"])
    balancer.set_hosts(["c", "b", "a"])
    assert balancer.hosts == ["a", "b", "c"]
    balancer.set_hosts(["c"])
    assert json.loads(layout.load_balancer.read_text())["ServerAddresses"] == ["c"]
