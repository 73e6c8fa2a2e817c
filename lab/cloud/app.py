"""The cloud as one Starlette application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware

from lab import pki
from lab.cloud import admin, metadata, web
from lab.cloud.actions import Engine
from lab.cloud.domain import actions
from lab.cloud.domain.common import Site, public_ips
from lab.cloud.domain.objects import Server
from lab.cloud.domain.view import View
from lab.cloud.faults import Faults
from lab.cloud.routes import actions as action_routes
from lab.cloud.routes import (
    catalogue,
    certificates,
    firewalls,
    floating_ips,
    images,
    load_balancers,
    networks,
    placement_groups,
    primary_ips,
    servers,
    ssh_keys,
    volumes,
    zones,
)
from lab.cloud.store import Clock, Store
from lab.machines.base import ExitReason, Machines
from lab.settings import Settings

DEFAULT_RATE_LIMIT = 3600
"""Requests per hour, as at Hetzner."""


@dataclass
class Cloud:
    """State that all requests of one application share."""

    settings: Settings
    store: Store
    machines: Machines
    faults: Faults
    engine: Engine
    rate: web.RateLimit
    token: str
    settle_seconds: float

    @cached_property
    def site(self) -> Site:
        return Site(
            public_range=self.settings.public_range,
            public_range_v6=self.settings.public_range_v6,
            image_support=self.machines.image_support,
            sold_out=self.faults.sold_out,
        )

    def metadata(self, server_id: int, path: str) -> tuple[int, str, str] | None:
        """Response of the metadata service at 169.254.169.254: HTTP status, content type and body; None for 404."""
        with self.store.transaction() as tx:
            server = tx.get(Server, server_id)
            return metadata.respond(View(tx), server, path) if server else None

    def address_of(self, name: str) -> str | None:
        """The IPv4 address whose reverse entry is this name, for the lab's resolver."""
        with self.store.transaction() as tx:
            return next((ip.ip for ip in public_ips(tx) if ip.dns_ptr.get(ip.ip, "").lower() == name), None)

    def on_exit(self, server_id: int, reason: ExitReason) -> None:
        """A host stopped without an action of the API."""
        self.enqueue(server_id, "host_exited", str(reason))

    def enqueue(self, server_id: int, work: str, reason: str = "") -> None:
        """Enqueue a job for a server, without an action."""
        with self.store.transaction() as tx:
            server = tx.get(Server, server_id)
            if server is not None:
                actions.enqueue(tx, work, server, reason=reason)


def create_app(
    settings: Settings,
    store: Store,
    machines: Machines,
    *,
    token: str,
    clock: Clock = time.time,
    rate_limit: int = DEFAULT_RATE_LIMIT,
    settle_seconds: float = web.SETTLE_SECONDS,
) -> Starlette:
    """The application; backends call `app.state.cloud`. Its lifespan reconciles the machines and resumes jobs."""
    faults = Faults()
    rate = web.RateLimit(rate_limit, clock)
    engine = Engine(store, machines, faults, partial(pki.issue_for_domains, settings.pki_dir, settings.name))
    cloud = Cloud(settings, store, machines, faults, engine, rate, token, settle_seconds)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_sync(engine.start)
        yield
        await run_sync(engine.stop)

    app = Starlette(
        routes=[
            *action_routes.routes(),
            *catalogue.routes(),
            *ssh_keys.routes(),
            *placement_groups.routes(),
            *networks.routes(),
            *firewalls.routes(),
            *servers.routes(),
            *volumes.routes(),
            *primary_ips.routes(),
            *floating_ips.routes(),
            *images.routes(),
            *zones.routes(),
            *certificates.routes(),
            *load_balancers.routes(),
            *admin.routes(),
        ],
        middleware=[Middleware(web.Envelope, rate=rate)],
        exception_handlers=web.EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.cloud = cloud
    return app
