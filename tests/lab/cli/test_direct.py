"""The lab's own services are requested past a proxy of the environment."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from lab import direct
from tests.lab.cloud.conftest import serving


def test_a_request_ignores_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no listener
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(tmp_path_factory.mktemp("cloud")) as lab:
        url = f"{lab.url}/v1/locations"
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.build_opener().open(url, timeout=5)
        # The cloud itself answers: without a token, with 401.
        with pytest.raises(urllib.error.HTTPError, match="401"):
            direct.urlopen(urllib.request.Request(url), timeout=5)
