"""The lab's GitLab as a service of the daemon, and as the command line and inventories find it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from lab import secrets
from lab.gitlab import api, repository
from lab.gitlab.documents import files_of_commit
from lab.gitlab.engine import Engine, Run
from lab.gitlab.store import Store, Variable
from lab.runnersim import package
from lab.settings import Settings

PROJECT = "slipway/slipway"
DEFAULT_BRANCH = "main"


def open_store(settings: Settings) -> Store:
    """The store; several processes can have it open."""
    return Store(settings.gitlab_dir)


def create_app(settings: Settings, address: str) -> Starlette:
    store = open_store(settings)
    if PROJECT not in [project.path for project in store.projects()]:
        store.put_project(PROJECT)
    url = f"https://{address}:{settings.gitlab_port}"
    return api.create_app(store, url, secrets.gitlab_token(settings), Engine(store, url).advance)


def push(
    settings: Settings,
    store: Store,
    source: Path,
    branch: str,
    *,
    trigger: str = "push",
    variables: Sequence[Variable] = (),
) -> Run:
    """Push the commit that is checked out in `source` and create its pipeline.

    The caller's store: where a process closes a second connection to the database, SQLite releases the locks of the
    first one, and the daemon's next start replaces the journal under it.
    """
    bare = settings.gitlab_dir / "repository.git"
    before, now = repository.publish(bare, source, branch)
    store.put_project(PROJECT, str(bare))
    engine = Engine(store, f"https://{settings.machine_address}:{settings.gitlab_port}")
    return engine.create(
        files_of_commit(bare, now),
        PROJECT,
        branch,
        now,
        source=trigger,
        protected=branch == DEFAULT_BRANCH,
        default_branch=DEFAULT_BRANCH,
        variables=variables,
        changed=repository.changed_paths(bare, before, now) if trigger == "push" else None,
    )


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
