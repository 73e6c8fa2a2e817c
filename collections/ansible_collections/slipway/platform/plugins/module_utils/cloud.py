"""Read-only access to the Hetzner Cloud API: whole collections, errors as one sentence.

Changes are made by the `hetzner.hcloud` modules; this is for the decisions before them, which need the whole project at
once. Standard library only, so that it runs wherever a module runs.
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
"""Most objects the API returns in one page."""

PASSING = frozenset({429, 502, 503, 504})
"""Answers that a moment later may be different."""

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try of a passing answer."""


class CloudError(Exception):
    """The API could not be asked. The text is one sentence; `code` is the API's own word, if there was one."""

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


PROJECT_OPTIONS: dict[str, dict[str, Any]] = {
    "api_token": {"type": "str", "required": True, "no_log": True},
    "api_endpoint": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
}
"""What a module has to be given to find an environment's project; documented in doc_fragments/cloud.py."""


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
        """One GET; passing failures are tried again a few times."""
        if not self._token:
            raise CloudError(
                "platform_hcloud_token is empty; put a token with read and write permission into the environment "
                "variable HCLOUD_TOKEN (console.hetzner.cloud, project, Security, API tokens).",
                "unauthorized",
            )
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            # It would end up in a header, and there in an error that shows it.
            raise CloudError(
                "platform_hcloud_token holds a space, a line's end or another character that no token has; set the "
                "environment variable HCLOUD_TOKEN to the token alone.",
                "unauthorized",
            )
        address = f"{self.endpoint}/{path}"
        if encoded := urlencode(list(query)):
            address += f"?{encoded}"
        for wait in (*WAITS, None):
            try:
                return self._get_once(address)
            except _Passing as passing:
                if wait is None:
                    raise CloudError(str(passing)) from None
                self._sleep(wait)
        raise AssertionError("the last try either returns or raises")

    def list(self, kind: str, query: Iterable[tuple[str, str | int]] = ()) -> list[Json]:
        """Every object of a kind, all pages."""
        objects: list[Json] = []
        page: int | None = 1
        while page is not None:
            answer = self.get(kind, [*query, ("page", page), ("per_page", PAGE)])
            objects.extend(answer[kind])
            following = answer.get("meta", {}).get("pagination", {}).get("next_page")
            # A server that repeats itself must not keep us here for ever.
            page = following if isinstance(following, int) and following > page else None
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
                raise _Passing(f"The Hetzner Cloud API at {self.endpoint} did not answer in time.") from None
            raise CloudError(
                f"The Hetzner Cloud API at {self.endpoint} cannot be reached ({reason}); "
                "check platform_hcloud_endpoint and the network of this machine.",
                "unreachable",
            ) from None
        except HTTPException as error:
            raise _Passing(f"The Hetzner Cloud API at {self.endpoint} broke off ({type(error).__name__}).") from None
        except ValueError:
            raise CloudError(f"{self.endpoint} does not speak the Hetzner Cloud API (no JSON answer).") from None
        if not isinstance(answer, dict):
            raise CloudError(f"{self.endpoint} does not speak the Hetzner Cloud API (no JSON object).")
        return answer

    def _explained(self, error: HTTPError) -> CloudError | _Passing:
        code, message = str(error.code), str(error.reason)
        try:
            body = json.load(error)
            code, message = str(body["error"]["code"]), str(body["error"]["message"])
        except (ValueError, KeyError, TypeError):
            pass
        if error.code in PASSING:
            return _Passing(f"The Hetzner Cloud API at {self.endpoint} answers {message} ({code}); try again later.")
        if error.code == 401:
            return CloudError(
                f"The Hetzner Cloud API at {self.endpoint} does not accept the token ({message}); "
                "set platform_hcloud_token (environment variable HCLOUD_TOKEN) to a valid one that may read and write.",
                "unauthorized",
            )
        return CloudError(f"The Hetzner Cloud API at {self.endpoint} answers {message} ({code}).", code)


class _Passing(Exception):
    pass
