"""Read-only client of the Hetzner Cloud API: complete collections, errors as one sentence.

The `hetzner.hcloud` modules make changes; plans and checks need the complete project at once, which this client reads.
Standard library only, so that it runs wherever a module runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

Json = dict[str, Any]

PAGE = 50
"""Maximum number of objects in a page of the API."""

RETRIED = frozenset({429, 502, 503, 504})
"""Status codes of transient errors."""

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0)
"""Delay before each retry of a transient error."""


class CloudError(Exception):
    """A failed request. The text is one sentence; `code` is the API's error code, if there is one."""

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


PROJECT_OPTIONS: dict[str, dict[str, Any]] = {
    "api_token": {"type": "str", "required": True, "no_log": True},
    "api_endpoint": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
}
"""Options that identify an environment's project; documented in doc_fragments/cloud.py."""


class Cloud:
    """One project of one Hetzner Cloud API."""

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        timeout_seconds: float = 20,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        self._timeout = timeout_seconds
        self._sleep = sleep

    def get(self, path: str, query: Iterable[tuple[str, str | int]] = ()) -> Json:
        """One GET; transient errors are retried."""
        if not self._token:
            raise CloudError(
                "platform_hcloud_token is empty; set the environment variable HCLOUD_TOKEN to a token with read and "
                "write permission (console.hetzner.cloud, project, Security, API tokens).",
                "unauthorized",
            )
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            # It would become part of a header, and the error for an invalid header shows its value.
            raise CloudError(
                "platform_hcloud_token holds a space, a newline or another character that is invalid in a token; set "
                "the environment variable HCLOUD_TOKEN to the token alone.",
                "unauthorized",
            )
        address = f"{self.endpoint}/{path}"
        if encoded := urlencode(list(query)):
            address += f"?{encoded}"
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                return self._get_once(address)
            except _TransientError as transient:
                if delay is None:
                    raise CloudError(str(transient)) from None
                self._sleep(delay)
        raise AssertionError("the last attempt either returns or raises")

    def list(self, kind: str, query: Iterable[tuple[str, str | int]] = ()) -> list[Json]:
        """All objects of a kind, from all pages."""
        objects: list[Json] = []
        page: int | None = 1
        while page is not None:
            answer = self.get(kind, [*query, ("page", page), ("per_page", PAGE)])
            objects.extend(answer[kind])
            next_page = answer.get("meta", {}).get("pagination", {}).get("next_page")
            # Protects against an endless loop if the server repeats a page.
            page = next_page if isinstance(next_page, int) and next_page > page else None
        return objects

    def _get_once(self, address: str) -> Json:
        if not address.startswith(("http://", "https://")):
            raise CloudError(f"The Hetzner Cloud endpoint {self.endpoint} is no http(s) address.")
        request = Request(address, headers={"Authorization": f"Bearer {self._token}", "Accept": "application/json"})
        try:
            with urlopen(request, timeout=self._timeout) as response:
                answer = json.load(response)
        except HTTPError as error:
            raise self._explained(error) from None
        except (URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise _TransientError(f"The Hetzner Cloud API at {self.endpoint} did not answer in time.") from None
            raise CloudError(
                f"The Hetzner Cloud API at {self.endpoint} cannot be reached ({reason}); "
                "check platform_hcloud_endpoint and the network of this machine.",
                "unreachable",
            ) from None
        except HTTPException as error:
            raise _TransientError(
                f"The Hetzner Cloud API at {self.endpoint} closed the connection ({type(error).__name__})."
            ) from None
        except ValueError:
            raise CloudError(f"{self.endpoint} is no Hetzner Cloud API (the response is no JSON).") from None
        if not isinstance(answer, dict):
            raise CloudError(f"{self.endpoint} is no Hetzner Cloud API (the response is no JSON object).")
        return answer

    def _explained(self, error: HTTPError) -> CloudError | _TransientError:
        code, message = str(error.code), str(error.reason)
        try:
            body = json.load(error)
            code, message = str(body["error"]["code"]), str(body["error"]["message"])
        except (ValueError, KeyError, TypeError):
            pass
        if error.code in RETRIED:
            return _TransientError(
                f"The Hetzner Cloud API at {self.endpoint} answers {message} ({code}); run again later."
            )
        if error.code == 401:
            return CloudError(
                f"The Hetzner Cloud API at {self.endpoint} does not accept the token ({message}); "
                "set platform_hcloud_token (environment variable HCLOUD_TOKEN) to a valid one that may read and write.",
                "unauthorized",
            )
        return CloudError(f"The Hetzner Cloud API at {self.endpoint} answers {message} ({code}).", code)


class _TransientError(Exception):
    pass
