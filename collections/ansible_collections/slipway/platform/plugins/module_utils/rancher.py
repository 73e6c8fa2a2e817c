"""Rancher through the Kubernetes API of a server, and through its public name as a user."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.slipway.platform.plugins.module_utils.kubernetes_api import ApiError, KubernetesApi

CHART = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/rancher"
MANAGEMENT = "/apis/management.cattle.io/v3"
PASSWORDS = "/api/v1/namespaces/cattle-local-user-passwords/secrets"
EXTENSION = "/apis/ext.cattle.io/v1"
CHANGE_REQUESTS = f"{EXTENSION}/passwordchangerequests"
ADMINISTRATOR_LABEL = "authz.management.cattle.io/bootstrapping=admin-user"
SESSIONS = (
    (f"{EXTENSION}/kubeconfigs", "cattle.io/user-id"),  # before their tokens, which they delete too
    (f"{EXTENSION}/tokens", "cattle.io/user-id"),
    (f"{MANAGEMENT}/tokens", "authn.management.cattle.io/token-userId"),
)
"""What a user logs in with beside the password, and the label that names the user."""
HASH_ANNOTATION, HASH_NAME = "cattle.io/password-hash", "pbkdf2sha3512"
ITERATIONS, KEY_BYTES = 210000, 32
"""Of Rancher's package pbkdf2, since 2.12."""
USERNAME = "admin"
PASSING = (OSError, http.client.HTTPException, ApiError)
"""What ends by itself: a server that restarts, a webhook or an aggregated API that is not ready."""


class RancherError(Exception):
    """Rancher rejected a request. One sentence, and the remedy."""

    permanent = True


# --- decisions -------------------------------------------------------------------------------------------------------


def version_faults(installed: str, wanted: str, upgrade_allowed: bool = False) -> list[str]:
    """Why the wanted version cannot follow the installed one ("" = none)."""
    if not installed or installed == wanted:
        return []
    before, after = _numbers(installed), _numbers(wanted)
    if after < before:
        return [
            f"rancher_version: {wanted} is older than the installed {installed}, and Rancher has no downgrade. "
            "Set the installed version, or restore the snapshot of etcd that was saved before the upgrade."
        ]
    if after[0] != before[0] or after[1] > before[1] + 1:
        return [
            f"rancher_version: {wanted} skips a minor after the installed {installed}. "
            f"Upgrade to the newest {before[0]}.{before[1] + 1} first."
        ]
    if not upgrade_allowed:
        return [
            f"rancher_version: {wanted}, but {installed} is installed. Set the installed version, or upgrade with "
            "playbooks/operations/upgrade_rancher.yml, which saves a snapshot first."
        ]
    return []


def _numbers(version: str) -> tuple[int, int, int]:
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version} is no version of three numbers")
    return int(found.group(1)), int(found.group(2)), int(found.group(3))


def password_is(secret: Mapping[str, Any], password: str) -> bool:
    """Whether a Secret of cattle-local-user-passwords belongs to the password.

    An older hash (bcrypt) counts as another password; Rancher replaces it when a new one is set.
    """
    annotations = secret["metadata"].get("annotations") or {}
    if annotations.get(HASH_ANNOTATION) != HASH_NAME:
        return False
    data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
    salt, stored = data.get("salt", b""), data.get("password", b"")
    wanted = hashlib.pbkdf2_hmac("sha3_512", password.encode(), salt, ITERATIONS, KEY_BYTES)
    return hmac.compare_digest(wanted, stored)


def findings(state: Mapping[str, Any], version: str) -> list[str]:
    """What is wrong with an installed Rancher, for `verify`; without a declared version any is right."""
    if not state["installed_version"]:
        return ["Rancher is not installed. Run playbooks/rancher.yml."]
    found = []
    if version and state["installed_version"] != version:
        found.append(f"Rancher: {state['installed_version']} is installed, declared is {version}")
    if not state["local_active"]:
        found.append("Rancher: its local cluster is not Active")
    if not state["password_current"]:
        found.append(
            "Rancher: the password of admin is not rancher_admin_password. Run playbooks/rancher.yml, which sets it."
        )
    if state["telemetry_enabled"]:
        found.append("Rancher: it sends telemetry (setting telemetry-opt). Set it to out.")
    return found


# --- the Kubernetes API ----------------------------------------------------------------------------------------------


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200] or "no text"


def read_state(api: KubernetesApi, password: str) -> dict[str, Any]:
    """What is installed, and whether the password of the first administrator is this one."""
    chart = api.get(CHART) or {}
    administrator = administrator_of(api) if chart else ""
    local = (api.get(f"{MANAGEMENT}/clusters/local") or {}) if administrator else {}
    telemetry = (api.get(f"{MANAGEMENT}/settings/telemetry-opt") or {}) if administrator else {}
    server = (api.get(f"{MANAGEMENT}/settings/server-version") or {}) if administrator else {}
    conditions = (local.get("status") or {}).get("conditions") or []
    return {
        "installed_version": str((chart.get("spec") or {}).get("version", "")).removeprefix("v"),
        "administrator": administrator,
        "password_current": bool(administrator) and has_password(api, administrator, password),
        "local_active": any(item["type"] == "Ready" and item["status"] == "True" for item in conditions),
        "telemetry_enabled": _value(telemetry) == "in",
        "server_version": _value(server),
    }


def _value(setting: Mapping[str, Any]) -> str:
    return str(setting.get("value") or setting.get("default") or "")


def administrator_of(api: KubernetesApi) -> str:
    """Name of the administrator that Rancher created at its first start; "" before that."""
    found = api.items(f"{MANAGEMENT}/users?labelSelector={quote(ADMINISTRATOR_LABEL)}")
    return next((str(item["metadata"]["name"]) for item in found), "")


def has_password(api: KubernetesApi, user: str, password: str) -> bool:
    secret = api.get(f"{PASSWORDS}/{user}")
    return secret is not None and password_is(secret, password)


def set_password(api: KubernetesApi, user: str, password: str) -> None:
    """Change a user's password with the rights of the cluster's administrator, which need no current password."""
    body = {
        "apiVersion": "ext.cattle.io/v1",
        "kind": "PasswordChangeRequest",
        "spec": {"userID": user, "newPassword": password},
    }
    status, content = api.call("POST", CHANGE_REQUESTS, body)
    if status in (400, 401, 403, 422):
        raise RancherError(f"rancher_admin_password: Rancher rejects it ({_message(content.decode())}).")
    if status != 201:
        raise ApiError(f"{CHANGE_REQUESTS} returned {status} ({_message(content.decode())})")
    if not has_password(api, user, password):
        raise ApiError(f"the password of {user} is still another one")


def sessions(api: KubernetesApi, user: str) -> list[str]:
    """Paths of the user's sessions, API keys and kubeconfigs."""
    return [
        f"{folder}/{item['metadata']['name']}"
        for folder, label in SESSIONS
        for item in api.items(f"{folder}?labelSelector={quote(f'{label}={user}')}")
    ]


def end_sessions(api: KubernetesApi, paths: Sequence[str]) -> None:
    for path in paths:
        status, content = api.call("DELETE", path)
        if status not in (200, 202, 404):
            raise ApiError(f"{path}: is not deleted, the API returned {status} ({_message(content.decode())})")


# --- as a user -------------------------------------------------------------------------------------------------------


class Site:
    """Rancher under its public name, at the address of the load balancer."""

    def __init__(self, name: str, address: str, authority: str, port: int = 443) -> None:
        self.name, self.address, self.port = name, address, port
        self.context = ssl.create_default_context(cadata=authority or None)

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, str]:
        connection = http.client.HTTPSConnection(self.name, timeout=20)
        try:
            raw = socket.create_connection((self.address, self.port), timeout=20)
            connection.sock = self.context.wrap_socket(raw, server_hostname=self.name)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()


def use(site: Site, password: str) -> list[str]:
    """Log in, read the local cluster and log out. What did not work, with the status seen."""
    status, text = site.call("GET", "/ping")
    if status != 200 or text.strip() != "pong":
        return [f"/ping returned {status} ({_message(text)})"]
    login = {"type": "localProvider", "username": USERNAME, "password": password}
    status, text = site.call("POST", "/v1-public/login", login)
    if status == 401:
        raise RancherError(
            f"https://{site.name}: rejects the password of {USERNAME}. Run playbooks/rancher.yml, which sets it."
        )
    if status != 201:
        return [f"/v1-public/login returned {status}"]
    token = str(json.loads(text)["token"])
    status, text = site.call("GET", "/v3/clusters/local", token=token)
    state = json.loads(text).get("state") if status == 200 else ""
    ended, _ = site.call("POST", "/v3/tokens?action=logout", {}, token)
    found = [] if state == "active" else [f"the local cluster is {state or f'not readable ({status})'}"]
    return found + ([] if 200 <= ended < 300 else [f"logout returned {ended}"])
