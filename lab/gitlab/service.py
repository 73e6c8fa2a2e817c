"""The lab's GitLab as a service of the daemon, and as the command line and inventories find it."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from lab import secrets
from lab.gitlab import api
from lab.gitlab.store import Store
from lab.runnersim import package
from lab.settings import Settings

PROJECT = "slipway/slipway"


def open_store(settings: Settings) -> Store:
    """The store; several processes can have it open."""
    return Store(settings.gitlab_dir)


def create_app(settings: Settings, address: str) -> Starlette:
    store = open_store(settings)
    store.put_project(PROJECT)
    return api.create_app(store, f"https://{address}:{settings.gitlab_port}", secrets.gitlab_token(settings))


def describe(settings: Settings, mirror_url: str, key_fingerprint: str) -> dict[str, Any]:
    """The entry `gitlab` of lab.json."""
    return {
        "url": f"https://{settings.machine_address}:{settings.gitlab_port}",
        "token": secrets.gitlab_token(settings),
        "version": api.VERSION,
        "runner_version": package.VERSIONS[0],
        "runner_packages_url": f"{mirror_url}{package.PUBLIC_PATH}",
        "runner_key_fingerprint": key_fingerprint,
        "note": "GitLab and GitLab Runner are simulations (lab.gitlab, lab.runnersim); jobs are real.",
    }
