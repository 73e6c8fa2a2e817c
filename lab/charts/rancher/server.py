"""Rancher's server as a simulation, in a pod: the endpoints and resources that the platform uses.

Paths, fields and the storage of passwords are Rancher's: the first administrator gets the password of
`bootstrap-secret`, settings are resources, and `PasswordChangeRequest` of the aggregated API changes a password. There
are no downstream clusters, no Fleet, no user interface and no provider but the local one: the rest is answered by 404.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lab.charts.client import Cluster, Refused

AUTHORITY = Path("/etc/rancher/ssl/cacerts.pem")
AUDIT_LOG = Path("/var/log/auditlog/rancher-api-audit.log")
MANAGEMENT = "/apis/management.cattle.io/v3"
PASSWORDS = "cattle-local-user-passwords"
HASH_ANNOTATION, HASH_NAME = "cattle.io/password-hash", "pbkdf2sha3512"
ITERATIONS, KEY_BYTES = 210000, 32
ADMINISTRATOR = {"authz.management.cattle.io/bootstrapping": "admin-user"}
SIMULATION = {"slipway.dev/simulation": "true"}
EXTENSION = "ext.cattle.io"
TOKENS = "cattle-tokens"
STORED = {"tokens": ("Token", "secrets", "token"), "kubeconfigs": ("Kubeconfig", "configmaps", "kubeconfig")}
"""Resource of the aggregated API → its kind, what stores it in the namespace TOKENS, and that object's KIND_LABEL."""
KIND_LABEL = "cattle.io/kind"
OPEN_PATHS = ("/ping", "/healthz")
"""Answered without TLS too: probes call them."""
SETTINGS = {
    "agent-tls-mode": "strict",
    "auth-user-session-idle-ttl-minutes": "960",
    "auth-user-session-ttl-minutes": "960",
    "auth-token-max-ttl-minutes": "129600",
    "cacerts": "",
    "first-login": "true",
    "kubeconfig-default-token-ttl-minutes": "43200",
    "password-min-length": "12",
    "server-url": "",
    "server-version": "",
}
"""Name to default: of Rancher 2.15.0's settings (pkg/settings/setting.go) those that the platform uses."""
TEXT = {"type": "string"}
CRDS: dict[str, tuple[str, dict[str, Any]]] = {
    "settings": ("Setting", {"value": TEXT, "default": TEXT, "source": TEXT, "customized": {"type": "boolean"}}),
    "users": ("User", {"username": TEXT, "displayName": TEXT, "mustChangePassword": {"type": "boolean"}}),
    "clusters": ("Cluster", {key: {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                             for key in ("spec", "status")}),
    "tokens": ("Token", {"token": TEXT, "userId": TEXT, "expiresAt": TEXT, "ttl": {"type": "integer"}}),
}  # fmt: skip


def hashed(password: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha3_512", password.encode(), salt, ITERATIONS, KEY_BYTES)


def encode(data: dict[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def password_data(password: str) -> dict[str, str]:
    salt = secrets.token_bytes(KEY_BYTES)
    return encode({"password": hashed(password, salt), "salt": salt})


def password_matches(secret: dict[str, Any], password: str) -> bool:
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    return hmac.compare_digest(hashed(password, data["salt"]), data["password"])


def definition(plural: str) -> dict[str, Any]:
    kind, properties = CRDS[plural]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.management.cattle.io", "labels": SIMULATION},
        "spec": {
            "group": "management.cattle.io",
            "scope": "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [{
                "name": "v3", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                **({"subresources": {"status": {}}} if plural == "clusters" else {}),
            }],
        },
    }  # fmt: skip


def extension_service(namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The aggregated API, as Rancher registers it, and the service behind it."""
    name, port = "imperative-api-extension", 6666
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": SIMULATION},
        "spec": {"selector": {"app": os.environ["IMPERATIVE_API_APP_SELECTOR"]}, "ports": [{"port": port}]},
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1.{EXTENSION}", "labels": SIMULATION},
        "spec": {
            "group": EXTENSION, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": {"name": name, "namespace": namespace, "port": port},
        },
    }  # fmt: skip
    return service, registration


def ensure(cluster: Cluster, namespace: str) -> None:
    """Create what Rancher creates at its start. Replicas do it at the same time: each step tolerates the others.

    Refused while an API server does not serve a new kind yet; the next attempt continues.
    """
    for plural in CRDS:
        cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(plural))
    cluster.create("/api/v1/namespaces", {"metadata": {"name": PASSWORDS, "labels": SIMULATION}})
    cluster.create("/api/v1/namespaces", {"metadata": {"name": TOKENS, "labels": SIMULATION}})
    ensure_settings(cluster)
    ensure_administrator(cluster, namespace)
    cluster.create(f"{MANAGEMENT}/clusters", {
        "apiVersion": "management.cattle.io/v3", "kind": "Cluster", "metadata": {"name": "local", "labels": SIMULATION},
        "spec": {"displayName": "local", "internal": True},
    })  # fmt: skip
    conditions = [{"type": name, "status": "True"} for name in ("Connected", "Ready")]
    cluster.merge(f"{MANAGEMENT}/clusters/local/status", {"status": {"conditions": conditions, "driver": "imported"}})
    service, registration = extension_service(namespace)
    cluster.create(f"/api/v1/namespaces/{namespace}/services", service)
    cluster.create("/apis/apiregistration.k8s.io/v1/apiservices", registration)


def ensure_settings(cluster: Cluster) -> None:
    """Create the known settings and delete the others, as Rancher's cleanupUnknownSettings does at each start."""
    defaults = {
        **SETTINGS,
        "cacerts": AUTHORITY.read_text() if AUTHORITY.exists() else "",
        "server-version": os.environ["CATTLE_SERVER_VERSION"],
    }
    for name, default in defaults.items():
        # As in Rancher, a setting of the environment wins over one of the resource.
        given = os.environ.get(f"CATTLE_{name.upper().replace('-', '_')}")
        cluster.create(f"{MANAGEMENT}/settings", {
            "apiVersion": "management.cattle.io/v3", "kind": "Setting",
            "metadata": {"name": name, "labels": SIMULATION}, "value": "", "default": default, "source": "",
        })  # fmt: skip
        change = {"default": default, **({"value": given, "source": "env"} if given else {})}
        cluster.merge(f"{MANAGEMENT}/settings/{name}", change)
    for item in cluster.call("GET", f"{MANAGEMENT}/settings")["items"]:
        if item["metadata"]["name"] not in defaults:
            cluster.delete(f"{MANAGEMENT}/settings/{item['metadata']['name']}")


def ensure_administrator(cluster: Cluster, namespace: str) -> None:
    name = "user-simulation"
    bootstrap = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/bootstrap-secret")
    if bootstrap is None:
        raise LookupError(f"secret {namespace}/bootstrap-secret is missing: the simulation generates no password")
    password = base64.b64decode(bootstrap["data"]["bootstrapPassword"]).decode()
    cluster.create(f"{MANAGEMENT}/users", {
        "apiVersion": "management.cattle.io/v3", "kind": "User",
        "metadata": {"name": name, "labels": {**SIMULATION, **ADMINISTRATOR}},
        "username": "admin", "displayName": "Default Admin", "mustChangePassword": password == "admin",
    })  # fmt: skip
    cluster.create(f"/api/v1/namespaces/{PASSWORDS}/secrets", {
        "metadata": {"name": name, "annotations": {HASH_ANNOTATION: HASH_NAME}}, "data": password_data(password),
    })  # fmt: skip


class Rancher:
    """What all listeners share."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.audit_lock = threading.Lock()
        self.audit_enabled = os.environ.get("AUDIT_LOG_ENABLED") == "true"

    def setting(self, name: str) -> str:
        item = self.cluster.get(f"{MANAGEMENT}/settings/{name}") or {}
        return str(item.get("value") or item.get("default") or "")

    def login(self, username: str, password: str) -> str | None:
        """A new session's token, or None for a wrong name or password."""
        for user in self.cluster.call("GET", f"{MANAGEMENT}/users")["items"]:
            secret = self.cluster.get(f"/api/v1/namespaces/{PASSWORDS}/secrets/{user['metadata']['name']}")
            if user["username"] == username and secret and password_matches(secret, password):
                return self.session(user["metadata"]["name"])
        return None

    def session(self, user: str) -> str:
        name, key = f"token-{secrets.token_hex(3)}", secrets.token_hex(27)
        minutes = int(self.setting("auth-user-session-ttl-minutes"))
        self.cluster.call("POST", f"{MANAGEMENT}/tokens", {
            "apiVersion": "management.cattle.io/v3", "kind": "Token",
            "metadata": {"name": name, "labels": {**SIMULATION, "authn.management.cattle.io/token-userId": user}},
            "token": hashlib.sha256(key.encode()).hexdigest(), "userId": user, "ttl": minutes * 60000,
            "expiresAt": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(),
        })  # fmt: skip
        return f"{name}:{key}"

    def token(self, given: str) -> dict[str, Any] | None:
        """The session of a valid token."""
        name, _, key = given.partition(":")
        item = self.cluster.get(f"{MANAGEMENT}/tokens/{name}") if name.replace("-", "").isalnum() else None
        if item is None or not hmac.compare_digest(item["token"], hashlib.sha256(key.encode()).hexdigest()):
            return None
        return dict(item) if datetime.fromisoformat(item["expiresAt"]) > datetime.now(UTC) else None

    def change_password(self, spec: dict[str, Any]) -> str:
        """Change a password; the text is the reason of a refusal."""
        minimum = int(self.setting("password-min-length"))
        user, password = str(spec.get("userID", "")), str(spec.get("newPassword", ""))
        if len(password) < minimum:
            return f"password must be at least {minimum} characters"
        item = self.cluster.get(f"{MANAGEMENT}/users/{user}") if user else None
        if item is None:
            return f"user {user} not found"
        if password == item["username"]:
            return "password cannot be the same as the username"
        self.cluster.merge(f"/api/v1/namespaces/{PASSWORDS}/secrets/{user}", {"data": password_data(password)})
        return ""

    def stored(self, resource: str) -> list[dict[str, Any]]:
        """Tokens or kubeconfigs of the aggregated API, without what they keep secret."""
        kind, folder, value = STORED[resource]
        found = (self.cluster.get(f"/api/v1/namespaces/{TOKENS}/{folder}") or {}).get("items", [])
        return [
            {
                "apiVersion": f"{EXTENSION}/v1",
                "kind": kind,
                "metadata": {"name": item["metadata"]["name"], "labels": labels},
            }
            for item in found
            if (labels := item["metadata"].get("labels") or {}).get(KIND_LABEL) == value
        ]

    def delete_stored(self, resource: str, name: str) -> bool:
        """Whether there was one. A kubeconfig takes its tokens with it."""
        folder = f"/api/v1/namespaces/{TOKENS}"
        if name not in [item["metadata"]["name"] for item in self.stored(resource)]:
            return False
        path = f"{folder}/{STORED[resource][1]}/{name}"
        data = self.cluster.call("GET", path).get("data") or {}
        self.cluster.delete(path)
        if resource == "kubeconfigs":
            for token in json.loads(data.get("status-tokens") or "[]"):
                self.cluster.delete(f"{folder}/secrets/{token}")
        return True

    def audit(self, **entry: Any) -> None:
        """One line for each request, without headers and bodies: they hold passwords and tokens."""
        if self.audit_enabled:
            line = json.dumps({"stageTimestamp": datetime.now(UTC).isoformat(), **entry})
            with self.audit_lock, AUDIT_LOG.open("a") as file:
                file.write(f"{line}\n")


class Handler(BaseHTTPRequestHandler):
    """Rancher's own API, on ports 80 and 443."""

    protocol_version = "HTTP/1.1"
    server_version = "Rancher-simulation"
    rancher: Rancher
    tls = False

    def do_GET(self) -> None:
        self.handle_request()

    def do_POST(self) -> None:
        self.handle_request()

    def do_DELETE(self) -> None:
        self.handle_request()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: probes would fill the log."""

    def answer(self, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        if self.path not in OPEN_PATHS:
            self.rancher.audit(
                requestURI=self.path, method=self.command, remoteAddr=self.client_address[0], responseCode=status
            )

    def read_json(self) -> dict[str, Any]:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def handle_request(self) -> None:
        try:
            self.respond(self.path.partition("?")[0].rstrip("/") or "/")
        except (OSError, Refused) as error:
            self.answer(503, {"type": "error", "status": 503, "message": str(error)})

    def respond(self, path: str) -> None:
        if path in OPEN_PATHS:
            self.answer(200, "pong" if path == "/ping" else "ok", "text/plain")
        elif not self.tls and self.headers.get("X-Forwarded-Proto") != "https":
            self.answer(302, "", "text/plain", Location=f"https://{self.headers.get('Host', '')}{self.path}")
        elif (self.command, path) == ("POST", "/v1-public/login"):
            given = self.read_json()
            local = given.get("type") == "localProvider"
            token = self.rancher.login(str(given.get("username")), str(given.get("password"))) if local else None
            if token is None:
                self.answer(401, {"type": "error", "status": "401", "code": "Unauthorized"})
            else:
                self.answer(201, {"type": "token", "token": token})
        elif (self.command, path) == ("GET", "/v3/settings/cacerts"):
            self.answer(200, {"id": "cacerts", "type": "setting", "value": self.rancher.setting("cacerts")})
        elif self.command == "GET" and path in ("/", "/dashboard"):
            version = os.environ["CATTLE_SERVER_VERSION"]
            self.answer(200, f"<title>Rancher {version}</title>A simulation of Rancher's server.\n", "text/html")
        else:
            self.respond_to_session(path)

    def respond_to_session(self, path: str) -> None:
        session = self.rancher.token(self.headers.get("Authorization", "").removeprefix("Bearer ").strip())
        if session is None:
            self.answer(401, {"type": "error", "status": "401", "code": "Unauthorized"})
        elif (self.command, path) == ("GET", "/v3/clusters/local"):
            status = self.rancher.cluster.call("GET", f"{MANAGEMENT}/clusters/local").get("status", {})
            ready = {"type": "Ready", "status": "True"} in status.get("conditions", [])
            self.answer(200, {"id": "local", "type": "cluster", "state": "active" if ready else "unavailable"})
        elif (self.command, path) == ("POST", "/v3/tokens"):  # ?action=logout
            self.rancher.cluster.call("DELETE", f"{MANAGEMENT}/tokens/{session['metadata']['name']}")
            self.answer(200, {})
        else:
            self.answer(404, {"type": "error", "status": "404", "message": "not part of the simulation"})


class Extension(Handler):
    """The aggregated API on port 6666; the API server authenticates itself and names its user."""

    tls = True

    def respond(self, path: str) -> None:
        version = f"{EXTENSION}/v1"
        resource, _, name = path.removeprefix(f"/apis/{version}/").partition("/")
        if (self.command, path) == ("GET", f"/apis/{version}"):
            kinds = [("passwordchangerequests", "PasswordChangeRequest", ["create"])]
            kinds += [(plural, kind, ["delete", "list"]) for plural, (kind, _, _) in STORED.items()]
            resources = [
                {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": verbs}
                for plural, kind, verbs in kinds
            ]
            self.answer(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
                              "resources": resources})  # fmt: skip
        elif (self.command, resource, name) != ("POST", "passwordchangerequests", "") and resource not in STORED:
            self.refuse(404, "NotFound", f"{path} is not part of the simulation")
        elif "system:masters" not in self.headers.get_all("X-Remote-Group", []):
            self.refuse(403, "Forbidden", "not authorized")
        elif resource in STORED:
            self.respond_stored(resource, name)
        else:
            request = self.read_json()
            if reason := self.rancher.change_password(request.get("spec", {})):
                self.refuse(400, "BadRequest", reason)
            else:
                updated = {"type": "PasswordUpdated", "status": "True"}
                status = {"summary": "Completed", "conditions": [updated]}
                kind = {"apiVersion": version, "kind": "PasswordChangeRequest"}
                self.answer(201, {**kind, "metadata": {}, "status": status})

    def respond_stored(self, resource: str, name: str) -> None:
        if self.command == "GET" and not name:
            selectors = parse_qs(self.path.partition("?")[2]).get("labelSelector", [""])[0].split(",")
            wanted = {tuple(selector.split("=")) for selector in selectors if selector}
            items = [
                item for item in self.rancher.stored(resource) if wanted <= set(item["metadata"]["labels"].items())
            ]
            kind = f"{STORED[resource][0]}List"
            self.answer(200, {"kind": kind, "apiVersion": f"{EXTENSION}/v1", "metadata": {}, "items": items})
        elif self.command == "DELETE" and name and self.rancher.delete_stored(resource, name):
            self.answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        else:
            self.refuse(404, "NotFound", f"{resource} {name} not found")

    def refuse(self, status: int, reason: str, message: str) -> None:
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
                             "reason": reason, "message": message})  # fmt: skip


def serving_context() -> ssl.SSLContext:
    """TLS with a new certificate of its own, as Rancher makes one behind an ingress."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/tls.key", f"{folder}/tls.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "365", "-subj", "/CN=rancher-simulation", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        context.load_cert_chain(certificate, key)
    return context


def extension_context(cluster: Cluster) -> ssl.SSLContext:
    """TLS that only the API server's proxy passes."""
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    context = serving_context()
    context.load_verify_locations(cadata=cluster.call("GET", path)["data"]["requestheader-client-ca-file"])
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a client that is slow to start TLS delays no other."""
        request.settimeout(60)
        if self.context is not None:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return
        super().finish_request(request, client_address)


def serve(port: int, handler: type[Handler], context: ssl.SSLContext | None = None) -> threading.Thread:
    server = Server(("", port), handler)
    server.context = context
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread


def main() -> None:
    cluster = Cluster()
    while True:
        try:
            ensure(cluster, os.environ["CATTLE_NAMESPACE"])
            break
        except (OSError, Refused) as error:
            print(f"not started yet: {error}", file=sys.stderr, flush=True)
            time.sleep(1)
    Handler.rancher = Rancher(cluster)
    secure = type("SecureHandler", (Handler,), {"tls": True})
    threads = [
        serve(80, Handler),
        serve(443, secure, serving_context()),
        serve(6666, Extension, extension_context(cluster)),
    ]
    print(f"Rancher {os.environ['CATTLE_SERVER_VERSION']}: a simulation", file=sys.stderr, flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
