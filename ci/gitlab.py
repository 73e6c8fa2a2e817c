"""Calls of GitLab's API from a job. The token is a variable of the job, never an argument."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

TIMEOUT_SECONDS = 30
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


class GitlabError(Exception):
    """One sentence: what GitLab did not do, and what to set."""


class Project:
    """The job's project."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        missing = [
            name for name in ("CI_API_V4_URL", "CI_PROJECT_ID", "SLIPWAY_API_TOKEN") if not environment.get(name)
        ]
        if missing:
            raise GitlabError(
                f"{', '.join(missing)}: not set. SLIPWAY_API_TOKEN is a project access token (docs/pipeline.md), the "
                "others are set by GitLab in its jobs."
            )
        self._url = f"{environment['CI_API_V4_URL']}/projects/{environment['CI_PROJECT_ID']}"
        self._session = requests.Session()
        self._session.headers["PRIVATE-TOKEN"] = environment["SLIPWAY_API_TOKEN"]
        # The authorities of the system include a company's own, those that requests brings do not.
        system = str(SYSTEM_AUTHORITIES) if SYSTEM_AUTHORITIES.exists() else True
        self._session.verify = environment.get("CI_SERVER_TLS_CA_FILE") or system

    def call(self, method: str, path: str, **body: Any) -> Any:
        url = f"{self._url}/{path}"
        try:
            response = self._session.request(method, url, json=body or None, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise GitlabError(f"{method} {url}: no answer ({type(error).__name__}). Repeat the job.") from None
        if not response.ok:
            raise GitlabError(
                f"{method} {url}: {response.status_code} {response.text[:300]}. Check the scope of SLIPWAY_API_TOKEN."
            )
        return response.json()
