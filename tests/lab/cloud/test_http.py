"""HTTP: token, routes, methods, bodies, headers, rate limit, lists."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from lab.cloud.app import create_app
from lab.cloud.store import Store
from lab.machines.stub import StubMachines
from lab.settings import Settings
from tests.lab.cloud.conftest import Api, Lab, Serve
from tests.lab.cloud.support import TOKEN


@pytest.mark.parametrize(
    ("method", "path", "header", "status", "code", "message"),
    [
        ("GET", "/v1/nothing", None, 404, "not_found", "api route not found"),
        ("GET", "/v1", None, 404, "not_found", "api route not found"),
        ("GET", "/", None, 404, "not_found", "api route not found"),
        ("GET", "/v1/servers/", f"Bearer {TOKEN}", 404, "not_found", "api route not found"),
        ("GET", "/v1/servers", None, 401, "unauthorized", "token is required"),
        ("GET", "/v1/servers", "Basic eDp5", 401, "unauthorized", "token is required"),
        ("GET", "/v1/servers", "Bearer wrong", 401, "unauthorized", "the token you have provided is invalid"),
        ("PATCH", "/v1/servers", None, 401, "unauthorized", "token is required"),
        ("PATCH", "/v1/servers", f"Bearer {TOKEN}", 405, "method_not_allowed", None),
        ("GET", "/_lab/status", "Bearer wrong", 401, "unauthorized", None),
        ("GET", "/v1/servers/42", f"Bearer {TOKEN}", 404, "not_found", "server with ID '42' not found"),
        ("GET", "/v1/servers/web", f"Bearer {TOKEN}", 404, "not_found", None),
        ("GET", "/v1/images/debian-13", f"Bearer {TOKEN}", 404, "not_found", None),
        ("GET", "/v1/datacenters", f"Bearer {TOKEN}", 410, "deprecated_api_endpoint", None),
        ("GET", "/v1/datacenters/4", f"Bearer {TOKEN}", 410, "deprecated_api_endpoint", None),
        ("GET", "/v1/actions", f"Bearer {TOKEN}", 410, "deprecated_api_endpoint", None),
    ],
)
def test_unknown_paths_methods_and_tokens(
    lab: Lab, method: str, path: str, header: str | None, status: int, code: str, message: str | None
) -> None:
    answer = httpx.request(method, lab.url + path, headers={"Authorization": header} if header else {})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert message is None or error["message"] == message


@pytest.mark.parametrize(
    "name",
    [
        "certificates", "firewalls", "floating_ips", "images", "isos", "load_balancer_types", "load_balancers",
        "locations", "networks", "placement_groups", "primary_ips", "server_types", "servers", "ssh_keys", "volumes",
        "zones",
    ],
)  # fmt: skip
def test_every_kind_has_a_list(api: Api, name: str) -> None:
    """`hcloud all list` reads them all."""
    payload = api.get(f"/{name}", name="nobody", per_page=50)
    assert (payload[name], payload["meta"]["pagination"]["total_entries"]) == ([], 0)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "json_error"),
        (b"[]", "invalid_input"),
        (b'"x"', "invalid_input"),
        (b"", "invalid_input"),
        (b"{}", "invalid_input"),
    ],
)
def test_bodies(lab: Lab, content: bytes, code: str) -> None:
    answer = lab.api.http.post("/ssh_keys", content=content)
    assert answer.json()["error"]["code"] == code


def test_all_faults_of_a_body_at_once(api: Api) -> None:
    status, payload = api("POST", "/servers", {"name": "not_a_host", "image": "debian-13", "labels": {"a": "-"}})
    assert status == 422
    error = payload["error"]
    assert error["message"].startswith("invalid input in fields 'name', 'server_type', 'labels': ")
    assert [entry["name"] for entry in error["details"]["fields"]] == ["name", "server_type", "labels"]
    assert all(entry["messages"] for entry in error["details"]["fields"])


def test_nulls_and_unknown_keys_are_ignored(api: Api, public_key: str) -> None:
    body = {"name": "key", "public_key": public_key, "labels": None, "shoe_size": 43}
    assert api.post("/ssh_keys", body)["ssh_key"]["labels"] == {}


def test_a_removed_key_is_an_error(api: Api) -> None:
    body = {"name": "web", "server_type": "cx23", "image": "debian-13", "datacenter": "fsn1-dc14"}
    assert "set a location instead" in api.message("POST", "/servers", body)


def test_the_default_rate_limit_is_that_of_hetzner(tmp_path: Path) -> None:
    store = Store(tmp_path / "cloud.sqlite3")
    app = create_app(Settings(name="test", state_root=tmp_path), store, StubMachines(), token=TOKEN)
    assert app.state.cloud.rate.limit == 3600
    store.close()


def test_rate_limit_counts_down_to_429(serve: Serve) -> None:
    now = [1_000_000.0]
    lab = serve(rate_limit=3, clock=lambda: now[0])
    left = [int(lab.api.http.get("/locations").headers["ratelimit-remaining"]) for _ in range(3)]
    assert left == [2, 1, 0]
    answer = lab.api.http.get("/locations")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(answer.headers["ratelimit-reset"]) == 1_000_000 + 3600
    now[0] += 1200
    assert lab.api.http.get("/locations").status_code == 200


def test_an_exception_in_a_handler_is_a_server_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.cloud.faults, "announced", lambda *_: 1 / 0)
    status, payload = lab.api("GET", "/server_types")
    assert (status, payload["error"]["code"]) == (500, "server_error")
