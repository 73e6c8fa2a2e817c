"""etcd snapshots."""

from __future__ import annotations

import asyncio

from .api import Api
from .config import Config
from .layout import Layout


class Snapshots:
    def __init__(self, config: Config, layout: Layout, node: str) -> None:
        self.config, self.layout, self.node = config, layout, node

    async def run(self, api: Api) -> None:
        await asyncio.Event().wait()


def command(arguments: list[str]) -> int:
    return 1
