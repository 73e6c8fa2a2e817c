"""The simulation of Rancher's server over HTTP, with the resources in memory; and the role's client against it."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import rancher

from lab import pki
from lab.charts.client import Refused
from lab.charts.rancher import server as simulation
from tests.static.repository import REPOSITORY, load, role_defaults

from .memory import Resources

PASSWORD, NAME = "correct horse battery", "rancher.test.slipway.test"
SECRETS = "/api/v1/namespaces/cattle-system/secrets"


@dataclass
class Running:
    resources: Resources
    port: int
    authority: Path

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        data = None if body is None else json.dumps(body).encode()

        class Direct(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            answer = urllib.request.build_opener(Direct()).open(request, data, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        text = answer.read().decode()
        kind = answer.headers.get("Content-Type")
        return answer.status, json.loads(text) if kind == "application/json" else text, dict(answer.headers)

    def login(self, password: str) -> tuple[int, Any]:
        body = {"type": "localProvider", "username": "admin", "password": password}
        status, answer, _ = self.request("POST", "/v1-public/login", body, X_Forwarded_Proto="https")
        return status, answer


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the password's hash: Rancher's number takes seconds here."""
    for module in (simulation, rancher):
        monkeypatch.setattr(module, "ITERATIONS", 1000)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the simulation: plain HTTP, TLS with a certificate for its name, or the aggregated API."""
    servers = []
    monkeypatch.setenv("CATTLE_SERVER_VERSION", "v2.15.0-simulation")
    monkeypatch.setenv("IMPERATIVE_API_APP_SELECTOR", "rancher")
    monkeypatch.setattr(simulation, "AUDIT_LOG", tmp_path / "audit.log")

    def start(handler: type[simulation.Handler] = simulation.Handler, tls: bool = False) -> Running:
        resources = Resources(*simulation.CRDS)
        encoded = base64.b64encode(PASSWORD.encode()).decode()
        resources.call(
            "POST", SECRETS, {"metadata": {"name": "bootstrap-secret"}, "data": {"bootstrapPassword": encoded}}
        )
        simulation.ensure(resources, "cattle-system")
        state = simulation.Rancher(resources)
        http = simulation.Server(("127.0.0.1", 0), type("Own", (handler,), {"rancher": state, "tls": tls}))
        authority = pki.ensure_authority(tmp_path, "test")
        if tls and handler is simulation.Handler:
            pair = pki.ensure_certificate(tmp_path, authority, "rancher", (NAME,))
            http.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            http.context.load_cert_chain(pair.certificate_path, pair.key_path)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        servers.append(http)
        return Running(resources, http.server_address[1], authority.certificate_path)

    yield start
    for http in servers:
        http.shutdown()
        http.server_close()


def test_probes_are_answered_without_tls_and_pages_are_redirected(serve: Callable[..., Running]) -> None:
    running = serve()
    assert running.request("GET", "/ping")[:2] == (200, "pong")
    assert running.request("GET", "/healthz")[:2] == (200, "ok")
    status, _, headers = running.request("GET", "/dashboard/", Host=NAME)
    assert (status, headers["Location"]) == (302, f"https://{NAME}/dashboard/")
    assert "simulation" in running.request("GET", "/dashboard/", X_Forwarded_Proto="https")[1]


def test_a_session_lives_from_login_to_logout(serve: Callable[..., Running]) -> None:
    running = serve()
    assert running.login("wrong")[0] == 401
    status, answer = running.login(PASSWORD)
    assert status == 201
    session = {"Authorization": f"Bearer {answer['token']}", "X_Forwarded_Proto": "https"}
    assert running.request("GET", "/v3/clusters/local", **session)[1]["state"] == "active"
    assert running.request("POST", "/v3/tokens?action=logout", {}, **session)[0] == 200
    assert running.request("GET", "/v3/clusters/local", **session)[0] == 401


def test_no_key_of_a_session_and_no_password_is_stored(serve: Callable[..., Running]) -> None:
    running = serve()
    key = running.login(PASSWORD)[1]["token"].partition(":")[2]
    stored = json.dumps({path: item for path, item in running.resources.objects.items() if SECRETS not in path})
    assert key not in stored
    assert PASSWORD not in stored
    assert base64.b64encode(PASSWORD.encode()).decode() not in stored


def test_a_restart_and_a_second_replica_keep_what_is_there(serve: Callable[..., Running]) -> None:
    running = serve()
    running.resources.merge(f"{simulation.MANAGEMENT}/settings/server-url", {"value": "https://rancher"})
    before = json.dumps(running.resources.objects)
    simulation.ensure(running.resources, "cattle-system")
    assert json.dumps(running.resources.objects) == before


def test_a_start_deletes_settings_that_rancher_does_not_have(serve: Callable[..., Running]) -> None:
    running = serve()
    folder = f"{simulation.MANAGEMENT}/settings"
    for name in ("kubeconfig-max-token-ttl-minutes", "auth-token-default-ttl-minutes"):
        running.resources.call("POST", folder, {"metadata": {"name": name}, "value": "43200"})
    simulation.ensure(running.resources, "cattle-system")
    names = {item["metadata"]["name"] for item in running.resources.items_of("settings")}
    assert names == set(simulation.SETTINGS)


def test_settings_of_the_role_exist_in_rancher() -> None:
    internal = load(REPOSITORY / "roles/rancher/vars/main.yml")["__rancher_settings"]
    assert {*role_defaults("rancher")["rancher_settings"], *internal} <= set(simulation.SETTINGS)


def test_the_audit_log_has_requests_and_no_bodies(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_LOG_ENABLED", "true")
    running = serve()
    running.login(PASSWORD)
    running.request("GET", "/ping")
    text = simulation.AUDIT_LOG.read_text()
    assert [json.loads(line)["requestURI"] for line in text.splitlines()] == ["/v1-public/login"]
    assert PASSWORD not in text


CHANGE = "/apis/ext.cattle.io/v1/passwordchangerequests"


@pytest.mark.parametrize(
    ("spec", "groups", "status", "message"),
    [
        ({"userID": "user-simulation", "newPassword": "a new long password"}, "system:masters", 201, ""),
        ({"userID": "user-simulation", "newPassword": "a new long password"}, "developers", 403, "not authorized"),
        ({"userID": "user-simulation", "newPassword": "short"}, "system:masters", 400, "at least 12 characters"),
        ({"userID": "user-other", "newPassword": "a new long password"}, "system:masters", 400, "not found"),
    ],
)
def test_a_password_is_changed_by_a_request_of_an_administrator(
    serve: Callable[..., Running], spec: dict[str, str], groups: str, status: int, message: str
) -> None:
    running = serve(simulation.Extension)
    answered, body, _ = running.request("POST", CHANGE, {"spec": spec}, X_Remote_Group=groups)
    assert answered == status
    assert message in body.get("message", "")
    secret = running.resources.objects["/api/v1/namespaces/cattle-local-user-passwords/secrets/user-simulation"]
    assert rancher.password_is(secret, spec["newPassword"]) == (status == 201)


# --- the role's client ------------------------------------------------------------------------------------------------


class Api(rancher.KubernetesApi):
    """The Kubernetes API of the resources in memory, with the simulation as its aggregated API."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.running = running

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        if path.startswith(rancher.EXTENSION):
            status, answer, _ = self.running.request(method, path, body, X_Remote_Group="system:masters")
            return status, json.dumps(answer).encode()
        path, _, query = path.partition("?")
        try:
            answer = self.running.resources.call(method, path, body, kind)
        except Refused as error:
            return error.status, b"{}"
        if query:
            label, _, value = unquote(query).removeprefix("labelSelector=").partition("=")
            items = [item for item in answer["items"] if item["metadata"].get("labels", {}).get(label) == value]
            answer = {"items": items}
        return 200, json.dumps(answer).encode()


def store(running: Running, resource: str, name: str, user: str, **data: str) -> None:
    """A token or kubeconfig of the aggregated API, as Rancher keeps it."""
    _, folder, kind = simulation.STORED[resource]
    labels = {"cattle.io/kind": kind, "cattle.io/user-id": user}
    body = {"metadata": {"name": name, "labels": labels}, "data": data}
    running.resources.call("POST", f"/api/v1/namespaces/cattle-tokens/{folder}", body)


def test_the_client_ends_sessions_api_keys_and_kubeconfigs_of_one_user(serve: Callable[..., Running]) -> None:
    running = serve(simulation.Extension)
    user = "user-simulation"
    simulation.Rancher(running.resources).session(user)
    simulation.Rancher(running.resources).session("user-other")
    store(running, "tokens", "token-key", user)
    store(running, "tokens", "token-kubeconfig", user)
    store(running, "tokens", "token-other", "user-other")
    store(running, "kubeconfigs", "kubeconfig-own", user, **{"status-tokens": '["token-kubeconfig"]'})
    store(running, "kubeconfigs", "kubeconfig-other", "user-other")
    api = Api(running)
    found = rancher.sessions(api, user)
    assert len(found) == 4
    rancher.end_sessions(api, found)
    assert rancher.sessions(api, user) == []
    assert len(rancher.sessions(api, "user-other")) == 3


def test_tokens_of_users_are_for_administrators_only(serve: Callable[..., Running]) -> None:
    running = serve(simulation.Extension)
    store(running, "tokens", "token-key", "user-simulation")
    path = f"{rancher.EXTENSION}/tokens"
    assert running.request("GET", path, X_Remote_Group="developers")[0] == 403
    assert running.request("DELETE", f"{path}/token-key", X_Remote_Group="developers")[0] == 403
    assert running.request("DELETE", f"{path}/token-missing", X_Remote_Group="system:masters")[0] == 404


def test_the_client_uses_rancher_under_its_name(serve: Callable[..., Running]) -> None:
    running = serve(tls=True)
    site = rancher.Site(NAME, "127.0.0.1", running.authority.read_text(), running.port)
    assert rancher.use(site, PASSWORD) == []
    tokens = [path for path in running.resources.objects if "/tokens/" in path]
    assert tokens == [], "the session is ended"
    with pytest.raises(rancher.RancherError, match="rejects the password of admin"):
        rancher.use(site, "another password")


def test_the_client_reports_a_cluster_that_is_not_active(serve: Callable[..., Running]) -> None:
    running = serve(tls=True)
    running.resources.merge(f"{simulation.MANAGEMENT}/clusters/local", {"status": {"conditions": []}})
    site = rancher.Site(NAME, "127.0.0.1", running.authority.read_text(), running.port)
    assert rancher.use(site, PASSWORD) == ["the local cluster is unavailable"]


def test_the_client_verifies_the_name(serve: Callable[..., Running]) -> None:
    running = serve(tls=True)
    site = rancher.Site("other.slipway.test", "127.0.0.1", running.authority.read_text(), running.port)
    with pytest.raises(ssl.SSLCertVerificationError):
        rancher.use(site, PASSWORD)
